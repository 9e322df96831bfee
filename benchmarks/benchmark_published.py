"""Seconds and memory of the published model, by part, beside the least that the machine would take.

    python benchmarks/benchmark_published.py --memory
    python benchmarks/benchmark_published.py [--dtype bfloat16] [--offload model] [--scale 8] [--out figures.json]
    python benchmarks/benchmark_published.py --compile max-autotune --steps 25

Weights are random, so nothing is downloaded. The bound of a part is the longer of two times: to read its weights (and
the keys and values of the text before) once, and to do its multiplications. Each figure is the best of a few runs.
"""

import resource
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from PIL import Image
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from minigpt5.loading import lay_channels_last
from minigpt5.published.shapes import SCALES, empty_parts, random_pipeline
from minigpt5.utils.files import check_file, write_json
from minigpt5.utils.offload import bring_to_device
from minigpt5.utils.programs import ProgramError, opening, run_program
from minigpt5.utils.settings import DTYPES, Settings, setting

GIB = 2**30
PROMPT = "What should happen then? <ImageHere> Tell me the next scene with image."
# What a reply takes beside the weights: a bf16 reply on the CPU took 1.9 GiB, mostly activations of the VAE.
WORKING_BYTES = 2 * GIB
# How often a compiled part runs before it is measured: CUDA's graphs are recorded in the second run.
WARM_UPS = 3
OFFLOADS = ("none", "model", "layers", "blocks", "leaves")
# Bytes a weight of a quantised layer takes: 8 bit with one fp32 scale a row (bitsandbytes), NF4 with one a block of 64.
QUANTISED = {
    "8 bit": lambda rows, columns: rows * (columns + 4),
    "4 bit": lambda rows, columns: rows * columns * 0.5625,
}


@dataclass(kw_only=True)
class PublishedBenchmark(Settings):
    """What is measured."""

    memory: bool = setting(False, help="print what the weights take by setting, and end")
    scale: int = setting(1, choices=SCALES, help="divide all widths by this")
    dtype: str = setting("bfloat16", choices=DTYPES, help="of all weights")
    device: str | None = setting(None, help="null for the GPU where there is one")
    offload: str = setting(
        "none",
        choices=OFFLOADS,
        help="keep what does not compute in main memory: whole models, layers one by one, groups of blocks, or leaves "
        "with the next ones on their way",
    )
    compile: str | None = setting(
        None,
        choices=(None, "default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"),
        help="mode of torch.compile, with fused projections and channels last; null for none",
    )
    tokens: int = setting(32, least=2, help="of the whole reply")
    steps: int = setting(50, least=1, most=1000, help="denoising steps of the whole reply")
    repeats: int = setting(3, least=1, help="runs of which each figure is the best")
    bandwidth: float | None = setting(None, above=0, help="of memory, in GB/s; null to measure it")
    flops: float | None = setting(None, above=0, help="peak, in TFLOP/s; null to measure it with a product of matrices")
    out: Path | None = setting(None, help="JSON file for the figures")


@dataclass
class Figure:
    """What a part took, and the least it would take; `peak` is known on a GPU only."""

    seconds: float
    weights: int
    flops: int
    bound: float
    peak: int | None


def parameter_bytes(parameters, itemsize):
    """Of parameters, each `itemsize` bytes wide."""
    return sum(parameter.numel() for parameter in parameters) * itemsize


def memory_settings(parts):
    """Bytes of weights on the device by setting: all at once, with one part at a time, and with one layer at a time."""
    table = {}
    model = parts["comprehension"].language_model
    layers = [module for name, module in model.named_modules() if isinstance(module, nn.Linear) and name != "lm_head"]
    saved = {"fp32": 0, "bf16": 0}
    for name, width in QUANTISED.items():
        quantised = sum(width(*layer.weight.shape) for layer in layers)
        saved[f"bf16, language model in {name}"] = 2 * sum(layer.weight.numel() for layer in layers) - quantised
    for kept, less in saved.items():
        itemsize = 4 if kept == "fp32" else 2
        sizes = {name: parameter_bytes(part.parameters(), itemsize) for name, part in parts.items()}
        sizes["comprehension"] -= less
        largest = max(p.numel() for part in parts.values() for p in part.parameters()) * itemsize
        by_layer = None if less else largest
        table[kept] = (sum(sizes.values()), max(sizes.values()), by_layer)
    return table


def print_memory(scale):
    """The table of weights by setting, without the text encoder, which only training needs."""
    parts = empty_parts(scale)
    text_encoder = parts.pop("text_encoder")
    print(f"GiB of weights on the device{'':>6}{'all':>10}{'a part':>10}{'a layer':>10}")
    for kept, sizes in memory_settings(parts).items():
        cells = "".join(f"{'–' if size is None else f'{size / GIB:.2f}':>10}" for size in sizes)
        print(f"{kept:<34}{cells}")
    print(f"the text encoder, for training: {parameter_bytes(text_encoder.parameters(), 2) / GIB:.2f} in bf16")


def needed_bytes(config, dtype):
    """Bytes needed on the device and in main memory, before anything is built."""
    parts = empty_parts(config.scale)
    del parts["text_encoder"]
    kept = "fp32" if dtype == torch.float32 else "bf16"
    everything, largest, layer = memory_settings(parts)[kept]
    on_device = {"none": everything, "model": largest}.get(config.offload, layer)
    return on_device + WORKING_BYTES // config.scale, everything if config.offload != "none" else 0


def refuse_if_too_large(config, dtype, device):
    """Raises a `ProgramError` if the memory that is free does not suffice."""
    on_device, in_main = needed_bytes(config, dtype)
    main = psutil.virtual_memory().available
    free = main if device.type == "cpu" else torch.cuda.mem_get_info(device)[0]
    for place, needed, there in ((device.type, on_device, free), ("main", in_main, main)):
        if needed > there:
            raise ProgramError(
                f"{needed / GIB:.1f} GiB of {place} memory needed, {there / GIB:.1f} free; "
                "try --dtype bfloat16, --offload on a GPU, or a larger --scale"
            )


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def best_seconds(work, device, repeats):
    """The shortest of `repeats` runs, in seconds."""
    times = []
    for _ in range(repeats):
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def measure_bandwidth(device):
    """Bytes a second that a copy within the device's memory moves, reading and writing."""
    source = torch.ones(2**30 if device.type == "cuda" else 2**28, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    target.copy_(source)
    return 2 * len(source) / best_seconds(lambda: target.copy_(source), device, 5)


def measure_flops(device, dtype):
    """Operations a second of a product of two large matrices."""
    size = 8192 if device.type == "cuda" else 2048
    one, two = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    torch.mm(one, two)
    return 2 * size**3 / best_seconds(lambda: torch.mm(one, two), device, 3)


def parts_of_a_reply(pipe, picture, config, kept):
    """Each part of a reply as a function, with the bytes that it cannot but read.

    The order is that of a reply; the cache that the prompt leaves is cut back after each step that extends it.

    Args:
        kept: an `ExitStack`, until whose end that cache is in use.
    """
    model, device, reader = pipe.comprehension, pipe._execution_device, pipe.reader
    inputs = pipe.encode_prompt([PROMPT], [[picture]])
    bring_to_device(model)
    seen = reader.picture_features(inputs)
    length = inputs["input_ids"].shape[1]
    text_model = model.language_model.base_model
    itemsize = model.dtype.itemsize
    table = parameter_bytes(model.get_input_embeddings().parameters(), itemsize)
    body = parameter_bytes(text_model.parameters(), itemsize) - table
    head = parameter_bytes(model.get_output_embeddings().parameters(), itemsize)
    cache = kept.enter_context(reader.reply_cache(inputs, config.tokens))

    def prefill():
        bring_to_device(model)
        return reader.prefill(inputs, reader.new_cache(), seen)

    def extend(ids):
        bring_to_device(model)
        ids = torch.tensor([ids], device=device)
        hidden = reader.extend(ids, None, cache).last
        cache.crop(length)
        return hidden

    reader.prefill(inputs, cache, seen)
    history = sum(2 * layer.keys[:, :, :length].nbytes for layer in cache.states.layers)
    vokens = reader.voken_ids
    features = extend(vokens)
    prompt_embeds = pipe.encode_vokens(features)
    halves = torch.cat([pipe.null_embeds(), prompt_embeds])
    side = pipe.unet.config.sample_size
    latents = torch.randn(2, pipe.unet.config.in_channels, side, side, device=device, dtype=pipe.unet.dtype)
    bridge = ("vision_model", "qformer", "language_projection")
    seeing = sum(parameter_bytes(getattr(model, name).parameters(), itemsize) for name in bridge)
    decoder = [*pipe.vae.decoder.parameters(), *pipe.vae.post_quant_conv.parameters()]

    def size(part):
        return parameter_bytes(part.parameters(), itemsize)

    def see():
        bring_to_device(model)
        return reader.picture_features(inputs)

    return {
        "a picture read": (see, seeing),
        f"a prompt of {length}": (prefill, body),
        "a token": (lambda: reader.logits(extend(vokens[:1])), body + head + history),
        f"a block of {len(vokens)} vokens": (lambda: extend(vokens), body + history),
        "the mapper": (lambda: pipe.encode_vokens(features), size(pipe.mapper)),
        "a UNet step, guided": (lambda: pipe.unet(latents, 500, encoder_hidden_states=halves), size(pipe.unet)),
        "VAE decoding": (lambda: pipe.vae.decode(latents[:1]), parameter_bytes(decoder, itemsize)),
    }


def compile_parts(pipe, mode):
    """Compile what `pipe.compile` does, with channels last and the UNet's projections in one product."""
    lay_channels_last(pipe.painter)
    pipe.unet.fuse_qkv_projections()
    pipe.compile(mode=mode)


@torch.no_grad()
def measure_parts(pipe, picture, bandwidth, flops, config):
    """A figure of each part of a reply; what compiles is compiled after its multiplications and weights are counted."""
    device, operations, weights, figures = pipe._execution_device, {}, {}, {}
    with ExitStack() as kept:
        # Weights too: behind fused projections those that they were made of are kept.
        for name, (work, weights[name]) in parts_of_a_reply(pipe, picture, config, kept).items():
            with FlopCounterMode(display=False) as counter:
                work()
            operations[name] = counter.get_total_flops()
    if config.compile:
        compile_parts(pipe, config.compile)
    with ExitStack() as kept:
        for name, (work, _) in parts_of_a_reply(pipe, picture, config, kept).items():
            for _ in range(WARM_UPS if config.compile else 0):
                work()
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            seconds = best_seconds(work, device, config.repeats)
            peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None
            bound = max(weights[name] / bandwidth, operations[name] / flops)
            figures[name] = Figure(seconds, weights[name], operations[name], bound, peak)
    return figures


def measure_replies(pipe, picture, config):
    """Seconds of whole replies, and of a token in them."""
    device = pipe._execution_device

    def reply(tokens, **options):
        pipe(PROMPT, picture, max_new_tokens=tokens, generator=torch.Generator().manual_seed(0), **options)

    def seconds(tokens, **options):
        reply(tokens, **options)
        return best_seconds(lambda: reply(tokens, **options), device, config.repeats)

    half = config.tokens // 2
    words = seconds(config.tokens, image_mode="never") - seconds(half, image_mode="never")
    with_picture = {"image_mode": "always", "num_inference_steps": config.steps}
    return {
        "a token in a reply": words / (config.tokens - half),
        f"a picture of {config.steps} steps, after one token": seconds(1, **with_picture),
        f"a reply of at most {config.tokens} tokens and a picture of {config.steps} steps": seconds(
            config.tokens, **with_picture
        ),
    }


def print_figures(figures):
    print(f"{'':<24}{'seconds':>10}{'bound':>10}{'share':>8}{'GiB read':>10}{'TFLOP':>9}{'peak GiB':>10}")
    for name, figure in figures.items():
        peak = "–" if figure.peak is None else f"{figure.peak / GIB:.2f}"
        print(
            f"{name:<24}{figure.seconds:>10.4f}{figure.bound:>10.4f}{figure.bound / figure.seconds:>8.0%}"
            f"{figure.weights / GIB:>10.3f}{figure.flops / 1e12:>9.3f}{peak:>10}"
        )


def main(config: PublishedBenchmark):
    if config.memory:
        return print_memory(config.scale)
    if config.out:
        check_file(config.out)
    with opening(f"the device {config.device}"):
        device = torch.device(config.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.empty(0, device=device)
    dtype = getattr(torch, config.dtype)
    if config.offload != "none" and device.type == "cpu":
        raise ProgramError("--offload moves parts between main memory and a GPU, and there is no GPU")
    refuse_if_too_large(config, dtype, device)
    bandwidth = config.bandwidth * 1e9 if config.bandwidth else measure_bandwidth(device)
    flops = config.flops * 1e12 if config.flops else measure_flops(device, dtype)

    start = time.perf_counter()
    pipe = random_pipeline(config.scale, dtype, device if config.offload == "none" else "cpu")
    pipe.set_progress_bar_config(disable=True)
    if config.offload == "model":
        pipe.enable_model_cpu_offload(device=device)
    elif config.offload == "layers":
        pipe.enable_sequential_cpu_offload(device=device)
    elif config.offload == "blocks":
        pipe.enable_group_offload(device, offload_type="block_level", num_blocks_per_group=1)
    elif config.offload == "leaves":
        pipe.enable_group_offload(device, offload_type="leaf_level", use_stream=True)
    built = time.perf_counter() - start
    count = sum(
        p.numel() for part in pipe.components.values() if isinstance(part, nn.Module) for p in part.parameters()
    )
    machine = (
        torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} CPU thread(s)"
    )
    print(f"{machine}, torch {torch.__version__}, {config.dtype}, scale {config.scale}, offload {config.offload}")
    print(
        f"{count / 1e9:.3f} G parameters built in {built:.1f} s; {bandwidth / 1e9:.1f} GB/s, {flops / 1e12:.2f} TFLOP/s"
    )

    picture = Image.effect_noise((300, 200), 64).convert("RGB")
    figures = measure_parts(pipe, picture, bandwidth, flops, config)
    print_figures(figures)
    replies = measure_replies(pipe, picture, config)
    used = (
        torch.cuda.max_memory_allocated(device)
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    for name, seconds in replies.items():
        print(f"{name}: {seconds:.4f} s")
    print(f"most memory: {used / GIB:.2f} GiB")
    if config.out:
        record = {"machine": machine, "dtype": config.dtype, "scale": config.scale, "offload": config.offload}
        record["compile"] = config.compile
        record |= {"parts": {name: vars(figure) for name, figure in figures.items()}}
        record |= {"seconds": replies, "most_memory_bytes": used}
        write_json(config.out, record)


if __name__ == "__main__":
    run_program(main, PublishedBenchmark, __doc__)
