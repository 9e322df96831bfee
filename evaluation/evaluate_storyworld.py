"""Examine a StoryWorld model on fresh scenes and stories and print what it reaches beside what it should.

    python evaluation/evaluate_storyworld.py --model storyworld-mini [--count 200] [--out results.json]

Scenes and stories come from the test split; captions and story sentences are worded in ways that no training text is.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from minigpt5.evaluation.storyworld import paint_alone
from minigpt5.loading import ModelSettings, open_model
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.examine import (
    examine_captions,
    examine_next_step,
    examine_painting,
    examine_stories,
    fresh_captions,
    sample_scenes,
)
from minigpt5.storyworld.judge import judge_accuracy, load_judge
from minigpt5.training.latents import psnr
from minigpt5.utils.files import check_file, write_json
from minigpt5.utils.images import to_tensor
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import plain, setting


@dataclass(kw_only=True)
class ExamConfig(ModelSettings):
    """The examination."""

    count: int = setting(200, least=1, help="scenes or stories a figure")
    out: Path | None = setting(None, help="JSON file for the figures")


@torch.no_grad()
def reconstruction(pipe, scenes):
    """Mean PSNR in dB of renders through the VAE."""
    pixels = torch.stack([to_tensor(draw(scene), pipe.vae.config.sample_size) for scene in scenes]).to(pipe.device)
    return psnr(pipe.vae.decode(pipe.vae.encode(pixels).latent_dist.mode()).sample, pixels)


def main(config: ExamConfig):
    if config.out:
        check_file(config.out)
    pipe = open_model(config.model, config.adapter)
    judge = load_judge()
    count = config.count
    one = sample_scenes(count, companion=False)
    two = sample_scenes(count, companion=True)
    held_out = sample_scenes(count, companion=False, held_out=True)
    figures, missed = {}, []

    def report(name, value, target):
        # JSON has no word for a number that is none.
        figures[name] = round(value, 4) if math.isfinite(value) else None
        verdict = "reached" if value >= target else "MISSED"
        if verdict == "MISSED":
            missed.append(name)
        print(f"{name:58} {value:7.3f}   target {target:6.3f}   {verdict}", flush=True)

    start = time.monotonic()
    for name, scenes in (("one character", one), ("two characters", two)):
        own = judge_accuracy(judge.read([draw(scene) for scene in scenes]), scenes)
        report(f"judge on renders, {name}: least attribute", min(own.values()), 0.99)
    report("VAE: PSNR in dB", reconstruction(pipe, one), 30)

    alone = {}
    for name, scenes, target in (
        ("one character", one, 0.9),
        ("two characters", two, 0.6),
        ("held-out pairs", held_out, 0.75),
    ):
        alone[name] = judge_accuracy(judge.read(paint_alone(pipe, fresh_captions(scenes))), scenes)
        print("   ", {attribute: round(value, 3) for attribute, value in alone[name].items()})
        report(f"text encoder + UNet, {name}: all right", alone[name]["all"], target)

    report("captions, one character: all named rightly", examine_captions(pipe.reader, one), 0.95)
    report("captions, two characters: all named rightly", examine_captions(pipe.reader, two), 0.7)

    for name, scenes in (("one character", one), ("two characters", two), ("held-out pairs", held_out)):
        painted = examine_painting(pipe, scenes)
        print("   ", {attribute: round(value, 3) for attribute, value in painted.items()})
        report(f"vokens, {name}: all right", painted["all"], 0.95 * alone[name]["all"])

    for name, told in (("said", True), ("shown", False)):
        step = examine_next_step(pipe, count, told)
        report(f"next picture, colour only {name}: hero right", step["hero"], 0.9)
        report(f"next step, colour only {name}: text agrees with picture", step["agrees"], 0.9)
    free = examine_stories(pipe, count)
    report("free-running stories: hero in all five pictures", free["hero_in_all"], 0.8)
    report("free-running stories: text agrees with picture", free["agrees"], 0.9)

    seconds = time.monotonic() - start
    print(f"{len(figures) - len(missed)} of {len(figures)} targets reached, {count} items each, {seconds:.0f} s")
    if config.out:
        write_json(config.out, plain(config) | {"figures": figures})


if __name__ == "__main__":
    run_program(main, ExamConfig, __doc__)
