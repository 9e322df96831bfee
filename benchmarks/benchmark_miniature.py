"""Speed and size of the miniature, and how many forwards a reply takes.

    python benchmarks/benchmark_miniature.py [--dtype bfloat16] [--out benchmarks/results.json]

Seconds depend on the machine; what compares are the ratios within one run. Each figure is the best of three.
"""

import platform
import resource
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from minigpt5.loading import ModelSettings, open_model
from minigpt5.storyworld.examine import fresh_captions, sample_scenes
from minigpt5.utils.files import check_file, write_json
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import DTYPES, setting
from minigpt5.vokens.decoding import DecodingConfig, InterleavedDecoder

BATCHES = (1, 8, 32)
NEW_TOKENS = 32


def best_of_three(work):
    """The shortest time in seconds of three runs, after one to warm up."""
    work()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times)


@contextmanager
def counted(*modules):
    """Counts the forwards of modules: yields a list with one number each."""
    counts = [0] * len(modules)

    def count(i):
        def hook(*_):
            counts[i] += 1

        return hook

    handles = [module.register_forward_hook(count(i)) for i, module in enumerate(modules)]
    yield counts
    for handle in handles:
        handle.remove()


@dataclass(kw_only=True)
class MiniatureBenchmark(ModelSettings):
    """What is measured."""

    dtype: str = setting("float32", choices=DTYPES, help="of all parts")
    out: Path | None = setting(None, help="JSON file for the figures")


def main(config: MiniatureBenchmark):
    if config.out:
        check_file(config.out)
    start = time.perf_counter()
    pipe = open_model(config.model, config.adapter, getattr(torch, config.dtype))
    figures = {"load_seconds": time.perf_counter() - start}
    captions = [f"Draw this: {text}" for text in fresh_captions(sample_scenes(max(BATCHES), companion=False))]

    # Stop strings and pictures off and the end token forbidden by a bias: every row decodes the same number of tokens.
    decoder = InterleavedDecoder(
        pipe.reader,
        DecodingConfig(max_new_tokens=NEW_TOKENS, image_mode="never", stop_strings=()),
    )
    decoder.never.append(pipe.processor.tokenizer.eos_token_id)
    embeds = pipe.null_embeds()
    generator = torch.Generator()
    for batch in BATCHES:
        inputs = pipe.encode_prompt(captions[:batch])
        seconds = best_of_three(lambda inputs=inputs: list(decoder.events(inputs)))
        figures[f"tokens_per_second_{batch}"] = batch * NEW_TOKENS / seconds

        def paint(batch=batch):
            pipe.painter(
                prompt_embeds=embeds.expand(batch, -1, -1),
                negative_prompt_embeds=embeds.expand(batch, -1, -1),
                num_inference_steps=pipe.config.num_inference_steps,
                guidance_scale=pipe.config.guidance_scale,
                generator=generator,
            )

        figures[f"pictures_per_second_{batch}"] = batch / best_of_three(paint)
        seconds = best_of_three(lambda batch=batch: pipe(captions[:batch], image_mode="always", generator=generator))
        figures[f"replies_per_second_{batch}"] = batch / seconds

    with counted(pipe.comprehension.language_model.base_model, pipe.unet, pipe.mapper) as counts:
        pipe(captions[0], image_mode="always")
    figures |= dict(zip(("llm_forwards", "unet_forwards", "mapper_forwards"), counts, strict=True))
    figures["reply_seconds"] = 1 / figures["replies_per_second_1"]
    figures["replies_32_over_1"] = figures["replies_per_second_32"] / figures["replies_per_second_1"]
    figures["peak_memory_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    figures["parameters"] = sum(
        p.numel() for part in pipe.components.values() if hasattr(part, "parameters") for p in part.parameters()
    )
    figures = {name: round(value, 3) for name, value in figures.items()}
    where = f"{platform.machine()}, {torch.get_num_threads()} threads, {pipe.device}"
    machine = f"{where}, torch {torch.__version__}, {config.dtype}"
    print(machine)
    for name, value in figures.items():
        print(f"{name:28} {value:>14,.2f}")
    if config.out:
        write_json(config.out, {"machine": machine, **figures})


if __name__ == "__main__":
    run_program(main, MiniatureBenchmark, __doc__)
