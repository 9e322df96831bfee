"""The StoryWorld judge's figures of replies to data that StoryWorld wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from minigpt5.evaluation.figures import Measurements, Task
from minigpt5.metrics import HeroIdentity, StoryWorldPictures, TextAccuracy, storyworld_bounds
from minigpt5.storyworld.examine import text_agrees
from minigpt5.storyworld.judge import load_judge
from minigpt5.storyworld.language import read
from minigpt5.storyworld.scene import Character, Scene
from minigpt5.utils.json_files import read_json


def read_truth(root: str | Path, split: str) -> dict[str, Scene]:
    """What each picture shows, by its path.

    Raises:
        FileNotFoundError: if the data set is none that StoryWorld wrote.
        ValueError: if what it wrote is broken; names the file and the picture.
    """
    path = Path(root) / f"{split}_truth.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: the judge can only mark data of training/export_storyworld.py")
    scenes = {}
    for name, entry in read_json(path).items():
        try:
            hero, companion = Character(**entry.pop("hero")), entry.pop("companion")
            scenes[str(Path(root) / name)] = Scene(hero, companion=companion and Character(**companion), **entry)
        except (TypeError, AttributeError, KeyError):
            raise ValueError(f"{path}: {name} is no scene of StoryWorld") from None
    return scenes


class JudgedMeasurements:
    """Adds the judge's figures to those of other metrics."""

    def __init__(self, measurements: Measurements, truth: dict[str, Scene]):
        self.measurements, self.truth = measurements, truth
        self.bounds: dict[str, dict[str, dict[str, float]]] = {}

    def pictures(self, tasks: Sequence[Task]) -> None:
        """Accuracy of each attribute and of frames, and F1 of characters; with floor, ceiling and the judge's error."""
        for task in tasks:
            shown = task.comparable()
            if not shown.items:
                continue
            scenes = [self.truth[item.picture] for item in shown.items]
            metric = StoryWorldPictures()
            metric.update(shown.pictures, scenes)
            self.measurements.add_rows(task, metric.items, metric.summarise, shown.groups)
            if len(scenes) > 1:
                self.bounds[task.name] = storyworld_bounds(shown.pictures, scenes)

    def heroes(self, task: Task) -> None:
        """Whether the hero stays who it is in all pictures of a story."""
        metric = HeroIdentity()
        for story in task.painted().by_group():
            metric.update([story.pictures], [self.truth[story.items[0].picture].hero])
        if len(metric.items):
            self.measurements.add_rows(task, metric.items, metric.summarise)

    def texts(self, task: Task) -> None:
        """Whether replies name what the true text does."""
        naming = task.having(lambda item, _: _names(item.text))
        if naming.items:
            metric = TextAccuracy()
            metric.update(naming.texts, naming.true_texts)
            self.measurements.add_rows(task, metric.items, metric.summarise, naming.groups)

    def coherence(self, task: Task) -> None:
        """Whether a reply's picture shows what its own text says, figure "text_agrees"."""
        shown = task.painted()
        if shown.items:
            verdicts = load_judge().read(shown.pictures)
            agrees = [text_agrees(text, verdict) for text, verdict in zip(shown.texts, verdicts, strict=True)]
            rows = np.array(agrees, dtype=float)[:, None]
            self.measurements.add_rows(task, rows, lambda rows: {"text_agrees": float(rows.mean())}, shown.groups)


def _names(text: str) -> bool:
    reading = read(text)
    return bool(reading.mentions or reading.place or reading.time)
