"""A training step: against the published program's on its recorded sizes, and at mid size with and without the cache.

    python benchmarks/benchmark_training.py [--out benchmarks/training.json]

One thread, as in the recording. Seconds depend on the machine; the published ones are of another, like this one.
"""

import json
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from minigpt5.data.tasks import exchange, story_context
from minigpt5.published.checkpoints import load_official
from minigpt5.published.shapes import SCALES, random_pipeline
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.scene import split_rng
from minigpt5.storyworld.stories import sample_story
from minigpt5.training.objective import LossWeights, VokenModel
from minigpt5.utils.files import check_file, write_json
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import Settings, setting
from minigpt5.vokens.adapters import LoraSettings, train_adapter

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from recordings import GOLDEN, VARIANTS, settings_of, sources


def conversations(count, read=2):
    """Stories to continue after two steps, of which `read` pictures are read; one is painted."""
    made = []
    for seed in range(count):
        steps = sample_story(split_rng("train", seed)).steps[:3]
        texts, pictures = [step.text for step in steps], [draw(step.scene) for step in steps]
        answer = [{"type": "text", "text": texts[2]}, {"type": "image", "image": pictures[2]}]
        made.append(exchange(story_context(texts[:2], pictures[:read] + [None] * (2 - read)), answer))
    return made


def step_seconds(pipe, batch, captions, lora, repeats, cache=None):
    """Forward, backward and AdamW: the best of some steps, after one to warm up."""
    train_adapter(pipe, lora)
    pipe.mapper.float().requires_grad_(True)
    model = VokenModel(pipe, LossWeights(caption=0.1 if captions else 0.0)).train()
    if cache:
        model.cache_features(cache)
    batch = model.prepare(batch.copy())
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-5)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        model(batch, captions)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.perf_counter() - start)
    return min(times[1:])


@dataclass(kw_only=True)
class TrainingBenchmark(Settings):
    """What is measured."""

    scale: int = setting(8, choices=SCALES, help="the mid-size model's widths are the published ones over this")
    batches: tuple[int, ...] = setting((1, 8, 32), least=1, help="conversations a batch")
    out: Path | None = setting(None, help="JSON file for the figures")


def main(config: TrainingBenchmark):
    if config.out:
        check_file(config.out)
    torch.set_num_threads(1)
    figures = {}
    for variant in VARIANTS:
        told = json.loads((GOLDEN / variant / "timings.json").read_text())
        stage2 = settings_of(variant)["stage2"]
        lora = LoraSettings() if stage2 else None
        for size in (1, 2, 4):
            pipe, _ = load_official(**sources(variant), merge=True)
            # Lengths like the recorded ones: captions without pictures, then stories with one.
            batch = pipe.reader.training_batch(conversations(size, read=int(stage2)))
            captions = None if stage2 else ["a picture"] * size
            seconds = step_seconds(pipe, batch, captions, lora, 10)
            theirs = told[f"train_step_batch{size}_seconds"] + told["optimizer_step_seconds"]
            row = {
                "ours_s": seconds,
                "ours_length": batch["input_ids"].shape[1],
                "published_s": theirs,
                "published_length": told[f"train_batch{size}_input_ids_length"],
                "published_over_ours": theirs / seconds,
            }
            figures[f"{variant}, batch {size}"] = row
    for size in config.batches:
        pipe = random_pipeline(config.scale)
        batch = pipe.reader.training_batch(conversations(size))
        plain = step_seconds(pipe, batch, None, LoraSettings(), 1)
        with tempfile.TemporaryDirectory() as folder:
            cached = step_seconds(random_pipeline(config.scale), batch, None, LoraSettings(), 1, Path(folder))
        figures[f"1/{config.scale} width, batch {size}"] = {
            "samples_per_s": size / plain,
            "cached_samples_per_s": size / cached,
            "cached_over_plain": plain / cached,
        }
    machine = f"{platform.machine()}, 1 thread, torch {torch.__version__}"
    print(machine)
    for name, row in figures.items():
        print(f"{name:24}" + "  ".join(f"{key} {value:.4g}" for key, value in row.items()))
    if config.out:
        write_json(config.out, {"machine": machine, "figures": figures})


if __name__ == "__main__":
    run_program(main, TrainingBenchmark, __doc__)
