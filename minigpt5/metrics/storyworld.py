"""What pictures and texts of StoryWorld get right, by the judge that ships, beside what chance and truth would get.

The figures of pictures are as good as the judge: `storyworld_bounds` gives its own error, the figures that true
pictures get (ceiling) and those that the same pictures get for other scenes (floor).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.functional import interpolate

from minigpt5.metrics.items import ItemMetric, WhereAsked, paired
from minigpt5.metrics.pictures import picture_batches
from minigpt5.storyworld.draw import character_rows, draw
from minigpt5.storyworld.examine import hero_kept, sample_scenes, text_agrees
from minigpt5.storyworld.judge import ATTRIBUTES, Judge, load_judge
from minigpt5.storyworld.language import Mention, Reading, read
from minigpt5.storyworld.marks import MARKS
from minigpt5.storyworld.scene import Character, Scene
from minigpt5.utils.images import Picture

T = TypeVar("T")


class StoryWorldPictures(ItemMetric):
    """What of each scene its picture shows.

    Figures: "kind_accuracy", "colour_accuracy", "side_accuracy", "place_accuracy" and "time_accuracy", the shares of
    pictures with that attribute right (`Verdict.compare`); "frame_accuracy", with all of them right; and
    "character_f1" with "character_precision" and "character_recall", over all characters seen and wanted, one being
    right in kind and colour wherever it stands.

    Args:
        judge: in place of the one that ships.
    """

    columns = (*(f"{attribute}_accuracy" for attribute in ATTRIBUTES), "frame_accuracy", "right", "seen", "wanted")
    higher_is_better = True

    def __init__(self, judge: Judge | None = None, **kwargs):
        super().__init__(**kwargs)
        self.judge = judge or load_judge()

    def update(self, pictures: Sequence[Picture], scenes: Sequence[Scene]) -> None:
        """Take pictures and the scene that each should show."""
        paired("pictures", pictures, "scenes", scenes)
        rows = []
        for verdict, scene in zip(self.judge.read(list(pictures)), scenes, strict=True):
            seen, wanted = Counter(verdict.characters), Counter(scene.characters)
            rows.append([*verdict.compare(scene).values(), (seen & wanted).total(), seen.total(), wanted.total()])
        self.add(rows)

    def summarise(self, items: np.ndarray) -> dict[str, float]:
        """Figures of rows `(pictures, columns)`."""
        figures = dict(zip(self.columns, items[:, :-3].mean(axis=0).tolist(), strict=False))
        right, seen, wanted = items[:, -3:].sum(axis=0).tolist()
        return figures | {
            "character_f1": 2 * right / (seen + wanted),
            "character_precision": right / seen if seen else 0.0,
            "character_recall": right / wanted,
        }


class HeroIdentity(ItemMetric):
    """Whether the hero stays the same animal of the same colour across a story; a row is a story.

    Figures: "hero_identity", the share of pictures that show the hero; "hero_in_all", of stories that do in all.

    Args:
        judge: in place of the one that ships.
    """

    columns = ("kept", "pictures", "hero_in_all")
    higher_is_better = True

    def __init__(self, judge: Judge | None = None, **kwargs):
        super().__init__(**kwargs)
        self.judge = judge or load_judge()

    def update(self, stories: Sequence[Sequence[Picture]], heroes: Sequence[Character]) -> None:
        """Take the pictures of stories and the hero of each.

        Raises:
            ValueError: if a story has no pictures.
        """
        rows = []
        for story, hero in paired("stories", stories, "heroes", heroes):
            if not len(story):
                raise ValueError("a story has no pictures")
            kept = [hero_kept(verdict, hero) for verdict in self.judge.read(list(story))]
            rows.append([sum(kept), len(kept), all(kept)])
        self.add(rows)

    def summarise(self, items: np.ndarray) -> dict[str, float]:
        """Figures of rows `(stories, columns)`."""
        kept, pictures, _ = items.sum(axis=0).tolist()
        return {"hero_identity": kept / pictures, "hero_in_all": float(items[:, 2].mean())}


class TextAccuracy(WhereAsked):
    """Whether a reply names what the truth has, read with StoryWorld's own words (`language.read`).

    The truth is a scene, all of which should be named but for the sides, or a text, of which what it names should be.
    Figures, over the replies in whose truth there is such a thing: "text_kind_accuracy" (every animal named),
    "text_colour_accuracy" (every one whose colour is known in that colour), "text_place_accuracy",
    "text_time_accuracy" and "text_accuracy" (all of these). What no truth has is left out. A caption that names no
    time says day, as everywhere in StoryWorld, so it is right for a scene by day.
    """

    columns = (
        "text_kind_accuracy",
        "text_colour_accuracy",
        "text_place_accuracy",
        "text_time_accuracy",
        "text_accuracy",
    )
    higher_is_better = True

    def update(self, texts: Sequence[str], truths: Sequence[Scene | str]) -> None:
        """Take texts, and the scene or the text that is true in the place of each.

        Raises:
            ValueError: if a truth names nothing.
        """
        self.add([_named(read(text), truth) for text, truth in paired("texts", texts, "truths", truths)])


class AnswerAccuracy(ItemMetric):
    """Whether a reply to one of StoryWorld's questions means what the true one does; figure "answer_accuracy".

    What counts is the mark of the question's kind (`marks.MARKS`): the colour named, the same box, and so on.
    """

    columns = ("answer_accuracy",)
    higher_is_better = True

    def update(self, texts: Sequence[str], kinds: Sequence[str], truths: Sequence[str]) -> None:
        """Take replies, the kind of each question, one of `MARKS`, and its true reply."""
        pairs = paired("texts", texts, "truths", truths)
        self.add([[MARKS[kind](text, truth)] for kind, (text, truth) in zip(kinds, pairs, strict=True)])


class TextAgreement(ItemMetric):
    """Whether a reply's picture shows what its own text names; figure "text_agrees".

    Args:
        judge: in place of the one that ships.
    """

    columns = ("text_agrees",)
    higher_is_better = True

    def __init__(self, judge: Judge | None = None, **kwargs):
        super().__init__(**kwargs)
        self.judge = judge or load_judge()

    def update(self, pictures: Sequence[Picture], texts: Sequence[str]) -> None:
        """Take pictures and the text that came with each."""
        pairs = paired("pictures", pictures, "texts", texts)
        verdicts = self.judge.read([picture for picture, _ in pairs])
        self.add([[text_agrees(text, verdict)] for (_, text), verdict in zip(pairs, verdicts, strict=True)])


class JudgeFeatures(nn.Module):
    """What the judge's layers find in a picture, for a Fréchet distance that needs no Inception.

    Args:
        judge: in place of the one that ships.
    """

    def __init__(self, judge: Judge | None = None):
        super().__init__()
        judge = judge or load_judge()
        self.layers, self.size = judge.features, judge.config["image_size"]

    @torch.no_grad()
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Means over the picture after each layer of convolutions, from edges to whole animals.

        Args:
            pictures: uint8 `(batch, 3, height, width)`.

        Returns:
            `(batch, 232)`.
        """
        found = interpolate(pictures / 127.5 - 1, (self.size, self.size), mode="area")
        means = []
        for layer in self.layers:
            if isinstance(layer, nn.Flatten):
                break
            found = layer(found)
            if isinstance(layer, nn.MaxPool2d):
                means.append(found.mean(dim=(2, 3)))
        return torch.cat(means, dim=1)


def edge_energy(pictures: Sequence[Picture]) -> float:
    """How sharp pictures are where characters stand: the mean squared difference of neighbouring pixels.

    Pixels in [0, 1]. Blur lowers it, noise raises it.
    """
    energies = []
    for batch in picture_batches(pictures):
        band = batch[:, :, character_rows(batch.shape[2])] / 255
        across, down = band.diff(dim=3), band.diff(dim=2)
        energies += (across.square().mean(dim=(1, 2, 3)) + down.square().mean(dim=(1, 2, 3))).tolist()
    return sum(energies) / len(energies)


def shuffled(truths: Sequence[T], seed: int = 0) -> list[T]:
    """The same truths in an order in which none keeps its place: measured against these, replies get the floor.

    Raises:
        ValueError: if there are fewer than two.
    """
    if len(truths) < 2:
        raise ValueError(f"at least two truths are needed to shuffle them, got {len(truths)}")
    order = list(range(len(truths)))
    random.Random(seed).shuffle(order)
    found = list(truths)
    for here, there in zip(order, order[1:] + order[:1], strict=True):
        found[here] = truths[there]
    return found


def storyworld_bounds(
    pictures: Sequence[Picture], scenes: Sequence[Scene], judge: Judge | None = None, seed: int = 0
) -> dict[str, dict[str, float]]:
    """What the figures of `StoryWorldPictures` lie between.

    Returns:
        "floor", the figures of the same pictures for scenes shuffled among them, which is chance; "ceiling", those of
        true pictures of the same scenes; "judge_error", 1 minus the judge's figures on 1000 true pictures of other
        scenes (validation split).
    """
    floor = _figures(pictures, shuffled(scenes, seed), judge)
    ceiling = _figures([draw(scene) for scene in scenes], scenes, judge)
    return {"floor": floor, "ceiling": ceiling, "judge_error": dict(_judge_error(judge))}


# A report has the bounds of several tasks, by one judge.
@lru_cache(maxsize=1)
def _judge_error(judge: Judge | None) -> dict[str, float]:
    scenes = sample_scenes(1000, "validation")
    own = _figures([draw(scene) for scene in scenes], scenes, judge)
    return {name: 1 - figure for name, figure in own.items()}


def _figures(pictures: Sequence[Picture], scenes: Sequence[Scene], judge: Judge | None) -> dict[str, float]:
    metric = StoryWorldPictures(judge)
    metric.update(pictures, scenes)
    return {name: figure.item() for name, figure in metric.compute().items()}


def _named(reading: Reading, truth: Scene | str) -> list[float]:
    """Whether kinds, colours, place, time and all are named as in the truth; NaN for what the truth has not."""
    if isinstance(truth, Scene):
        mentions = tuple(Mention(who.kind, who.colour) for who in truth.characters)
        wanted, said_time = Reading(mentions, truth.place, truth.time), reading.time or "day"
    else:
        wanted, said_time = read(truth), reading.time
    kinds = {mention.kind for mention in reading.mentions}
    coloured = {(mention.kind, mention.colour) for mention in reading.mentions}
    with_colour = {(mention.kind, mention.colour) for mention in wanted.mentions if mention.colour}
    asked = {
        "kind": ({mention.kind for mention in wanted.mentions} <= kinds) if wanted.mentions else None,
        "colour": with_colour <= coloured if with_colour else None,
        "place": reading.place == wanted.place if wanted.place else None,
        "time": said_time == wanted.time if wanted.time else None,
    }
    answers = [right for right in asked.values() if right is not None]
    if not answers:
        raise ValueError(f"the truth {truth!r} names nothing of StoryWorld")
    return [float("nan") if right is None else float(right) for right in (*asked.values(), all(answers))]
