"""Examine a StoryWorld model on fresh scenes and stories and print what it reaches beside what it should.

    python evaluation/evaluate_storyworld.py --model storyworld-mini [--count 200] [--processes 2] [--out results.json]

Scenes and stories come from the test split; captions, questions, wishes and story sentences are worded in ways that no
training text is. Behind each share stand the bounds of its 95 % interval. The figures do not depend on how many
processes share the work.
"""

import math
import multiprocessing
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import torch

from minigpt5.evaluation.storyworld import paint_alone
from minigpt5.loading import ModelSettings, open_model
from minigpt5.metrics.intervals import Interval, paired_difference, wilson_interval
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
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.memory import keep_freed_memory
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import plain, setting


@dataclass(kw_only=True)
class ExamConfig(ModelSettings):
    """The examination."""

    count: int = setting(200, least=1, help="scenes or stories a figure")
    processes: int = setting(1, least=1, help="processes that share the figures, of one thread each where several do")
    out: Path | None = setting(None, help="JSON file for the figures")


class Figure(NamedTuple):
    """What is reached, what should be, and between which bounds it lies; `by` is what it is of, by attribute."""

    name: str
    value: float
    target: float
    interval: Interval | None = None
    by: Mapping[str, float] = {}

    @property
    def reached(self) -> bool:
        """Whether it is as good as it should be; 0.945 - 0.975 is not below -0.03 for what floats leave behind."""
        return round(self.value - self.target, 9) >= 0

    def __str__(self) -> str:
        bounds = f"[{self.interval.low:.3f}, {self.interval.high:.3f}]" if self.interval else ""
        verdict = "reached" if self.reached else "MISSED"
        by = f"\n    {', '.join(f'{name} {value:.3f}' for name, value in self.by.items())}" if self.by else ""
        return f"{self.name:58} {self.value:7.3f} {bounds:16} target {self.target:6.3f}   {verdict}{by}"


def share(name: str, value: float, target: float, items: int, by: Mapping[str, float] | None = None) -> Figure:
    """A share of so many items. Steps of one story hang together, so of what is a share of steps the stories count.

    So do two tellings of one opening.
    """
    return Figure(name, value, target, wilson_interval(value * items, items), by or {})


def marked(name: str, marks: list[bool], target: float) -> Figure:
    return share(name, sum(marks) / len(marks), target, len(marks))


# The figures in parts, none of which needs another: each takes a pipeline and how many items to ask for.

KINDS = {
    "one character": {"companion": False},
    "two characters": {"companion": True},
    "held-out pairs": {"companion": False, "held_out": True},
}


@torch.no_grad()
def examine_parts(pipe, count: int) -> Iterator[Figure]:
    """The judge that marks, and the VAE."""
    for name in ("one character", "two characters"):
        scenes = sample_scenes(count, **KINDS[name])
        own = judge_accuracy(load_judge().read([draw(scene) for scene in scenes]), scenes)
        yield share(f"judge on renders, {name}: all right", own["all"], 0.99, count)
    scenes = sample_scenes(count, **KINDS["one character"])
    size = pipe.vae.config.sample_size
    pixels = torch.stack([to_tensor(draw(scene, size), size) for scene in scenes]).to(pipe.device)
    decoded = pipe.vae.decode(pipe.vae.encode(pixels).latent_dist.mode()).sample
    yield Figure("VAE: PSNR in dB", psnr(decoded, pixels), 30)


def examine_pictures(pipe, count: int, kind: str, target: float) -> Iterator[Figure]:
    """Captions painted by the painter alone, and through vokens."""
    scenes = sample_scenes(count, **KINDS[kind])
    alone = judge_accuracy(load_judge().read(paint_alone(pipe, fresh_captions(scenes))), scenes)
    yield share(f"text encoder + UNet, {kind}: all right", alone["all"], target, count, alone)
    painted = examine_painting(pipe, scenes)
    through = 0.95 if kind == "held-out pairs" else 0.95 * alone["all"]
    yield share(f"vokens, {kind}: all right", painted["all"], through, count, painted)


def examine_reading(pipe, count: int) -> Iterator[Figure]:
    """Captions of pictures."""
    for kind, target in (("one character", 0.95), ("two characters", 0.7)):
        right = examine_captions(pipe.reader, sample_scenes(count, **KINDS[kind]))
        yield share(f"captions, {kind}: all named rightly", right, target, count)


def examine_telling(pipe, count: int) -> Iterator[Figure]:
    """The next step of stories, and whole ones."""
    for name, told in (("said", True), ("shown", False)):
        step = examine_next_step(pipe, count, told)
        yield share(f"next picture, colour only {name}: hero right", step["hero"], 0.9, count)
        yield share(f"next step, colour only {name}: text agrees with picture", step["agrees"], 0.9, count)
    free = examine_stories(pipe, count)
    yield share("free-running stories: hero in all five pictures", free["hero_in_all"], 0.8, count)
    yield share("free-running stories: text agrees with picture", free["agrees"], 0.9, count)


def examine_answers(pipe, count: int) -> Iterator[Figure]:
    """Questions, boxes and wishes."""
    marks = interview(answerer(pipe), count)
    for name in ASKED:
        yield marked(f"question, {name}: right", marks[name], 0.9)
    yield marked("box for a phrase: overlap of at least 0.5", marks["ground"], 0.8)
    yield marked("phrase for a box: right", marks["refer"], 0.9)
    yield marked("change of a picture: that right, all else kept", marks["change"], 0.85)
    yield marked("two named animals: both there, colours bound", marks["two animals"], 0.9)
    for name in ("question", "wish"):
        yield marked(f"{name}, typed well: right", marks[name], 0.9)
        difference = paired_difference(marks[f"{name}, rough"], marks[name])
        yield Figure(f"{name}, typed roughly: difference", difference.estimate, -0.03, difference)
    yield marked("wish without a colour: right", marks["wish without a colour"], 0.9)
    yield marked("last turn of a chat, behind true ones: right", marks["last turn"], 0.9)
    yield marked("outside the world: refused, and no picture", marks["outside"], 0.9)
    yield marked("outside the world: with the reason that holds", marks["outside, why"], 0.9)
    yield marked("inside the world: not refused, a picture if wished for", marks["inside"], 0.9)
    yield marked("end of a story: told, and no picture", marks["ending"], 0.9)


def examine_seeds(pipe, count: int) -> Iterator[Figure]:
    """Stories that are sampled."""
    tellings = examine_tellings(pipe, count)
    yield marked("sampled stories: another seed tells another", tellings["differ"], 0.9)
    sound = tellings["sound"]
    yield share("sampled stories: sentences are put together rightly", sum(sound) / len(sound), 0.95, count)
    for figure, told in (
        ("places", "no place comes twice"),
        ("times", "dusk and dawn come once at most"),
        ("another", "who is met is of another kind"),
        ("companion", "a companion stays"),
    ):
        if marks := tellings[figure]:
            yield share(f"sampled stories: {told}", sum(marks) / len(marks), 0.9, math.ceil(len(marks) / 2))


PARTS = (
    examine_parts,
    partial(examine_pictures, kind="one character", target=0.9),
    partial(examine_pictures, kind="two characters", target=0.6),
    partial(examine_pictures, kind="held-out pairs", target=0.75),
    examine_reading,
    examine_telling,
    examine_answers,
    examine_seeds,
)


opened = cache(open_model)


def examine_part(config: ExamConfig, part: int) -> list[Figure]:
    """The figures of one part, in a process of its own."""
    keep_freed_memory()
    quiet_libraries()
    torch.set_num_threads(1)
    return list(PARTS[part](opened(config.model, config.adapter), config.count))


def examine(config: ExamConfig) -> Iterator[Iterable[Figure]]:
    """The figures of one part after the other."""
    if config.processes == 1:
        pipe = open_model(config.model, config.adapter)
        yield from (part(pipe, config.count) for part in PARTS)
    else:
        with ProcessPoolExecutor(config.processes, multiprocessing.get_context("spawn")) as pool:
            # The longest are the last, and begin first, so that none is left running alone.
            begun = [pool.submit(examine_part, config, part) for part in reversed(range(len(PARTS)))]
            yield from (part.result() for part in reversed(begun))


def main(config: ExamConfig):
    if config.out:
        check_file(config.out)
    start, figures = time.monotonic(), []
    for part in examine(config):
        for figure in part:
            figures.append(figure)
            print(figure, flush=True)
    reached, seconds = sum(figure.reached for figure in figures), time.monotonic() - start
    print(f"{reached} of {len(figures)} targets reached, {config.count} items each, {seconds:.0f} s")
    if config.out:
        # JSON has no word for a number that is none.
        values = {each.name: round(each.value, 4) if math.isfinite(each.value) else None for each in figures}
        bounds = {each.name: [round(bound, 4) for bound in each.interval[1:]] for each in figures if each.interval}
        write_json(config.out, plain(config) | {"figures": values, "intervals": bounds})


if __name__ == "__main__":
    run_program(main, ExamConfig, __doc__)
