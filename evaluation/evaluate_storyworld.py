"""Examine a StoryWorld model on fresh scenes and stories and print what it reaches beside what it should.

    python evaluation/evaluate_storyworld.py --model storyworld-mini [--count 200] [--out results.json]

Scenes and stories come from the test split; captions, questions, wishes and story sentences are worded in ways that no
training text is. Behind each share stand the bounds of its 95 % interval.
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from minigpt5.evaluation.storyworld import paint_alone
from minigpt5.loading import ModelSettings, open_model
from minigpt5.metrics.intervals import paired_difference, wilson_interval
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.examine import (
    examine_captions,
    examine_next_step,
    examine_painting,
    examine_stories,
    fresh_captions,
    sample_scenes,
)
from minigpt5.storyworld.interview import answerer, examine_tellings, interview
from minigpt5.storyworld.judge import judge_accuracy, load_judge
from minigpt5.storyworld.questions import ASKED
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
    figures, intervals, missed = {}, {}, []

    def report(name, value, target, interval=None):
        # JSON has no word for a number that is none.
        figures[name] = round(value, 4) if math.isfinite(value) else None
        verdict = "reached" if value >= target else "MISSED"
        if verdict == "MISSED":
            missed.append(name)
        bounds = ""
        if interval:
            intervals[name] = [round(interval.low, 4), round(interval.high, 4)]
            bounds = f"[{interval.low:.3f}, {interval.high:.3f}]"
        print(f"{name:58} {value:7.3f} {bounds:16} target {target:6.3f}   {verdict}", flush=True)

    def report_share(name, value, target, items=count):
        # Steps of one story hang together, so of what is a share of steps the stories count.
        report(name, value, target, wilson_interval(round(value * items), items))

    def report_marks(name, marks, target):
        report_share(name, sum(marks) / len(marks), target, len(marks))

    start = time.monotonic()
    for name, scenes in (("one character", one), ("two characters", two)):
        own = judge_accuracy(judge.read([draw(scene) for scene in scenes]), scenes)
        report_share(f"judge on renders, {name}: least attribute", min(own.values()), 0.99)
    report("VAE: PSNR in dB", reconstruction(pipe, one), 30)

    alone = {}
    for name, scenes, target in (
        ("one character", one, 0.9),
        ("two characters", two, 0.6),
        ("held-out pairs", held_out, 0.75),
    ):
        alone[name] = judge_accuracy(judge.read(paint_alone(pipe, fresh_captions(scenes))), scenes)
        print("   ", {attribute: round(value, 3) for attribute, value in alone[name].items()})
        report_share(f"text encoder + UNet, {name}: all right", alone[name]["all"], target)

    report_share("captions, one character: all named rightly", examine_captions(pipe.reader, one), 0.95)
    report_share("captions, two characters: all named rightly", examine_captions(pipe.reader, two), 0.7)

    for name, scenes, target in (
        ("one character", one, 0.95 * alone["one character"]["all"]),
        ("two characters", two, 0.95 * alone["two characters"]["all"]),
        ("held-out pairs", held_out, 0.95),
    ):
        painted = examine_painting(pipe, scenes)
        print("   ", {attribute: round(value, 3) for attribute, value in painted.items()})
        report_share(f"vokens, {name}: all right", painted["all"], target)

    for name, told in (("said", True), ("shown", False)):
        step = examine_next_step(pipe, count, told)
        report_share(f"next picture, colour only {name}: hero right", step["hero"], 0.9)
        report_share(f"next step, colour only {name}: text agrees with picture", step["agrees"], 0.9)
    free = examine_stories(pipe, count)
    report_share("free-running stories: hero in all five pictures", free["hero_in_all"], 0.8)
    report_share("free-running stories: text agrees with picture", free["agrees"], 0.9)

    marks = interview(answerer(pipe), count, judge)
    for name in ASKED:
        report_marks(f"question, {name}: right", marks[name], 0.9)
    report_marks("box for a phrase: overlap of at least 0.5", marks["ground"], 0.8)
    report_marks("phrase for a box: right", marks["refer"], 0.9)
    report_marks("change of a picture: that right, all else kept", marks["change"], 0.85)
    report_marks("two named animals: both there, colours bound", marks["two animals"], 0.9)
    for name in ("question", "wish"):
        rough = marks[f"{name}, rough"]
        report_marks(f"{name}, typed well: right", marks[name], 0.9)
        difference = paired_difference(rough, marks[name])
        report(f"{name}, typed roughly: difference", difference.estimate, -0.03, difference)
    report_marks("outside the world: told so, and no picture", marks["outside"], 0.9)
    report_marks("inside the world: not told that it is outside", marks["inside"], 0.9)
    report_marks("end of a story: told, and no picture", marks["ending"], 0.9)

    tellings = examine_tellings(pipe, count, judge)
    report_marks("sampled stories: another seed tells another", tellings["differ"], 0.9)
    report_marks("sampled stories: no place comes twice", tellings["places"], 0.9)
    report_marks("sampled stories: no time comes twice", tellings["times"], 0.9)
    if tellings["companion"]:
        report_marks("sampled stories: a companion stays", tellings["companion"], 0.9)

    seconds = time.monotonic() - start
    print(f"{len(figures) - len(missed)} of {len(figures)} targets reached, {count} items each, {seconds:.0f} s")
    if config.out:
        write_json(config.out, plain(config) | {"figures": figures, "intervals": intervals})


if __name__ == "__main__":
    run_program(main, ExamConfig, __doc__)
