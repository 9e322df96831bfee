"""A training step: against the published program's on its recorded sizes, and at mid size with and without the cache.

Of the miniature, padded or packed, with fused attention or plain products. Of the published size the multiplications
are counted, on shapes alone: what of them the cache can save.

    python benchmarks/benchmark_training.py [--out benchmarks/training.json]
    python benchmarks/benchmark_training.py --gpu true [--out benchmarks/gpu_training.json]

One thread, as in the recording. Seconds depend on the machine; the published ones are of another, like this one. On a
GPU both stages at published size are measured, in bf16, and which share of the rate of a product of matrices they get.
"""

import json
import platform
import random
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import scaled_dot_product_attention
from torch.utils.flop_counter import FlopCounterMode

from minigpt5 import MiniGPT5Pipeline
from minigpt5.data.tasks import exchange, story_context
from minigpt5.published.checkpoints import load_official
from minigpt5.published.shapes import IMAGE_SIZE, N_VOKENS, SCALES, empty_parts, random_pipeline
from minigpt5.readers.minigpt4 import MiniGPT4Reader
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.scene import split_rng
from minigpt5.storyworld.stories import sample_story
from minigpt5.storyworld.tasks import training_item
from minigpt5.training.fit import plain_attention
from minigpt5.training.objective import LossWeights, VokenModel
from minigpt5.utils.files import check_file, write_json
from minigpt5.utils.programs import opening, run_program
from minigpt5.utils.settings import Settings, setting
from minigpt5.vokens.adapters import LoraSettings, train_adapter

sys.path += [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

from benchmark_published import GIB, measure_flops, synchronize
from recordings import GOLDEN, VARIANTS, settings_of, sources

# What a caption of the first stage takes, its vokens among them.
CAPTION_TOKENS = 60


def conversations(count, read=2):
    """Stories to continue after two steps, of which `read` pictures are read; one is painted."""
    made = []
    for seed in range(count):
        steps = sample_story(split_rng("train", seed)).steps[:3]
        texts, pictures = [step.text for step in steps], [draw(step.scene) for step in steps]
        answer = [{"type": "text", "text": texts[2]}, {"type": "image", "image": pictures[2]}]
        made.append(exchange(story_context(texts[:2], pictures[:read] + [None] * (2 - read)), answer))
    return made


def step_seconds(pipe, batch, captions, lora, repeats, cache=None, count=None):
    """Forward, backward and AdamW: the best of some steps, after one to warm up. On a GPU in bf16 beside fp32.

    Args:
        count: a `FlopCounterMode` for the first of these steps.
    """
    train_adapter(pipe, lora)
    pipe.mapper.float().requires_grad_(True)
    model = VokenModel(pipe, LossWeights(caption=0.1 if captions else 0.0)).train()
    if cache:
        model.cache_features(cache)
    device = pipe.mapper.device
    batch = model.prepare(batch.copy()).to(device)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5, fused=True)
    times = []
    for number in range(repeats + 1):
        synchronize(device)
        start = time.perf_counter()
        with count if count and number == 0 else nullcontext():
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                loss = model(batch, captions)["loss"]
            loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times[1:])


def step_flops(length, read, captions):
    """TFLOP of a training step of the published size for one conversation: what the cache saves, and what it cannot.

    Args:
        length: tokens of the conversation.
        read: pictures of it that are read; one more is painted.
        captions: whether the caption loss has weight, as in the first stage.
    """
    parts = {name: part.to("meta").requires_grad_(name == "mapper") for name, part in empty_parts().items()}
    reader, mapper, unet = parts["comprehension"], parts["mapper"], parts["unet"]
    empty = partial(torch.empty, device="meta")
    side = 8 * unet.config.sample_size
    frozen = {
        "pictures read": lambda: reader.get_image_features(empty(read, 3, IMAGE_SIZE, IMAGE_SIZE)),
        "target encoded": lambda: parts["vae"].encode(empty(1, 3, side, side)),
    }
    if captions:
        ids = torch.zeros(1, mapper.config.text_length, dtype=torch.long, device="meta")
        frozen["caption encoded"] = lambda: parts["text_encoder"](ids)
    states = empty(1, length, mapper.config.voken_dim, requires_grad=True)
    features = empty(1, N_VOKENS, mapper.config.voken_dim, requires_grad=True)
    conditioning = empty(1, mapper.config.text_length, mapper.config.text_dim, requires_grad=True)
    noisy = empty(1, 4, unet.config.sample_size, unet.config.sample_size)
    trained = {
        "language model": lambda: reader.language_model(inputs_embeds=states, use_cache=False).logits,
        "mapper": lambda: mapper(features),
        "UNet": lambda: unet(noisy, 500, encoder_hidden_states=conditioning).sample,
    }
    counted = {}
    for name, work in (frozen | trained).items():
        # Masks without values are taken for what is traced only where tensors are fake.
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        with fake, FlopCounterMode(display=False) as counter, torch.set_grad_enabled(name in trained):
            if name in trained:
                work().sum().backward()
            elif read or name != "pictures read":
                work()
        counted[f"{name}_tflop"] = counter.get_total_flops() / 1e12
    saved = sum(counted[f"{name}_tflop"] for name in frozen)
    whole = sum(counted.values())
    return counted | {"cached_over_plain_at_most": whole / (whole - saved)}


def recorded():
    """Our step beside the published program's, of the sizes of its recordings."""
    figures = {}
    for variant in VARIANTS:
        told = json.loads((GOLDEN / variant / "timings.json").read_text())
        stage2 = settings_of(variant)["stage2"]
        lora = LoraSettings() if stage2 else None
        for size in (1, 2, 4):
            pipe, _ = load_official(**sources(variant), merge=True)
            batch = pipe.reader.training_batch(conversations(size, read=int(stage2)))
            last_tokens(batch, told[f"train_batch{size}_input_ids_length"])
            captions = None if stage2 else ["a picture"] * size
            seconds = step_seconds(pipe, batch, captions, lora, 10)
            theirs = told[f"train_step_batch{size}_seconds"] + told["optimizer_step_seconds"]
            row = {
                "tokens": batch["input_ids"].shape[1],
                "ours_s": seconds,
                "published_s": theirs,
                "published_over_ours": theirs / seconds,
            }
            figures[f"{variant}, batch {size}"] = row
    return figures


def last_tokens(batch, length):
    """Cut a batch from the left, where neither text nor vokens of the reply are."""
    for name in ("input_ids", "attention_mask", "labels"):
        batch[name] = batch[name][:, -length:]


def mid_size(scale, batches):
    """Samples a second with divided widths, and with what is frozen fetched from a cache."""
    figures = {}
    for size in batches:
        pipe = random_pipeline(scale)
        batch = pipe.reader.training_batch(conversations(size))
        plain = step_seconds(pipe, batch, None, LoraSettings(), 1)
        with tempfile.TemporaryDirectory() as folder:
            cached = step_seconds(random_pipeline(scale), batch, None, LoraSettings(), 1, Path(folder))
        figures[f"1/{scale} width, batch {size}"] = {
            "samples_per_s": size / plain,
            "cached_samples_per_s": size / cached,
            "cached_over_plain": plain / cached,
        }
    return figures


def miniature(size=40, repeats=5):
    """A step of the miniature's second stage in bf16, padded or packed, with fused attention or plain products."""
    pipe = MiniGPT5Pipeline.from_pretrained("storyworld-mini")
    rng, tasks, stories = random.Random(0), ("paint", "change", "question", "turns", "outside"), size // 4
    asked = [training_item(rng.choice(tasks), rng).messages() for _ in range(size - stories)]
    train_adapter(pipe, LoraSettings(rank=64, alpha=64))
    pipe.mapper.requires_grad_(True)
    model = VokenModel(pipe, LossWeights(diffusion=0.0, caption=1.0, mask_padding=False)).train()
    batch = model.prepare(pipe.reader.training_batch(conversations(stories) + asked))
    captions = ["a red fox"] * len(batch["targets"])
    ways = {(packs, plain): [] for packs in (False, True) for plain in (False, True)}
    for (packs, plain), times in list(ways.items()) * (repeats + 1):
        model.zero_grad()
        start = time.perf_counter()
        with (
            patch.object(MiniGPT4Reader, "_packs", packs),
            plain_attention() if plain else nullcontext(),
            torch.autocast("cpu", torch.bfloat16),
        ):
            loss = model(batch, captions)["loss"]
        loss.backward()
        times.append(time.perf_counter() - start)
    padded, *others = (min(times[1:]) for times in ways.values())
    ratios = dict(zip(("plain_products", "packed", "both"), (padded / seconds for seconds in others), strict=True))
    mask = batch["attention_mask"]
    return {"miniature, second stage": {"tokens": int(mask.sum()), "padded_tokens": mask.numel(), **ratios}}


def attention(lengths=(32, 128, 512), tokens=2048, heads=8, width=32, repeats=5):
    """Forward and backward of causal attention on the CPU: time of the fused kernel over that of plain products."""
    figures = {}
    for dtype in (torch.bfloat16, torch.float32):
        row = {}
        for length in lengths:
            states = torch.randn(tokens // length, heads, length, width, dtype=dtype, requires_grad=True)
            mask = torch.ones(length, length, dtype=torch.bool).tril()
            times = {nullcontext: [], plain_attention: []}
            for way in list(times) * (repeats + 1):
                start = time.perf_counter()
                with way():
                    scaled_dot_product_attention(states, states, states, mask).sum().backward()
                times[way].append(time.perf_counter() - start)
            fused, plain = (min(seconds[1:]) for seconds in times.values())
            row[f"length {length}"] = fused / plain
        figures[f"fused over plain attention, {dtype}".replace("torch.", "")] = row
    return figures


def on_gpu(scale, batches):
    """Both stages on a GPU: samples a second, and the share of what a product of matrices gets."""
    device = torch.device("cuda")
    peak = measure_flops(device, torch.bfloat16)
    figures = {}
    for stage, read, lora in (("first", 0, None), ("second", 2, LoraSettings())):
        for size in batches:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            pipe = random_pipeline(scale, torch.bfloat16, device, text_encoder=True)
            batch = pipe.reader.training_batch(conversations(size, read))
            if not read:
                last_tokens(batch, CAPTION_TOKENS)
            captions = None if read else [f"picture number {number}" for number in range(size)]
            counter = FlopCounterMode(display=False)
            seconds = step_seconds(pipe, batch, captions, lora, 3, count=counter)
            figures[f"{stage} stage, batch {size}"] = {
                "tokens": batch["input_ids"].shape[1],
                "samples_per_s": size / seconds,
                "tflop": counter.get_total_flops() / 1e12,
                "share_of_peak": counter.get_total_flops() / seconds / peak,
                "peak_gib": torch.cuda.max_memory_allocated() / GIB,
            }
            del pipe
    return figures


@dataclass(kw_only=True)
class TrainingBenchmark(Settings):
    """What is measured."""

    gpu: bool = setting(False, help="measure both stages at the size that scale tells on a GPU, and nothing else")
    scale: int = setting(8, choices=SCALES, help="the mid-size model's widths are the published ones over this")
    batches: tuple[int, ...] = setting((1, 8, 32), least=1, help="conversations a batch")
    out: Path | None = setting(None, help="JSON file for the figures")


def main(config: TrainingBenchmark):
    if config.out:
        check_file(config.out)
    if config.gpu:
        with opening("a GPU"):
            machine = f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
        figures = on_gpu(config.scale, config.batches)
    else:
        torch.set_num_threads(1)
        machine = f"{platform.machine()}, 1 thread, torch {torch.__version__}"
        figures = recorded() | mid_size(config.scale, config.batches) | miniature() | attention()
        # Two steps of a story with their pictures, and the reply, are about 300 tokens.
        figures["published size, first stage"] = step_flops(CAPTION_TOKENS, 0, captions=True)
        figures["published size, second stage"] = step_flops(300, 2, captions=False)
    print(machine)
    for name, row in figures.items():
        print(f"{name:24}" + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    if config.out:
        write_json(config.out, {"machine": machine, "figures": figures})


if __name__ == "__main__":
    run_program(main, TrainingBenchmark, __doc__)
