"""Figures of replies, by task, with bootstrap intervals over captions, stories or talks.

What cannot be computed, because its weights or its library are missing, is noted with the reason and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
from torchmetrics import Metric

from minigpt5.evaluation.items import Item
from minigpt5.evaluation.replies import Reply, ReplyFolder
from minigpt5.metrics import (
    ClipImageSimilarity,
    ClipTextSimilarity,
    FrechetInceptionDistance,
    HPSv2,
    InceptionScore,
    KernelInceptionDistance,
    Meteor,
    MissingWeights,
    MMRelevanceMMDialog,
    MMRelevancePerTurn,
    PickScore,
    PictureDecision,
    RougeL,
    SentenceSimilarity,
    WordBLEU,
    character_bleu_as_published,
    load_clip_encoder,
    story_fid_as_published,
)
from minigpt5.metrics.intervals import Interval, percentile_bounds, resamples
from minigpt5.metrics.items import ItemMetric
from minigpt5.utils.images import open_image
from minigpt5.utils.processes import pick_device

T = TypeVar("T")
# Pictures that are open at a time.
CHUNK = 64
# Inception Score is taken over this many splits.
SPLITS = 10


@dataclass
class Task:
    """The items of one task with their replies, and their figures so far."""

    name: str
    items: list[Item]
    replies: list[Reply]
    figures: dict[str, Interval | float] = field(default_factory=dict)

    @property
    def groups(self) -> list[str]:
        """The group of each item."""
        return [item.group for item in self.items]

    def having(self, wanted: Callable[[Item, Reply], bool]) -> Task:
        """The items and replies of a kind; their figures are this task's."""
        kept = [(item, reply) for item, reply in zip(self.items, self.replies, strict=True) if wanted(item, reply)]
        return Task(self.name, [item for item, _ in kept], [reply for _, reply in kept], self.figures)

    def painted(self) -> Task:
        """The items whose reply has a picture."""
        return self.having(lambda _, reply: bool(reply.paths))

    def comparable(self) -> Task:
        """The items whose reply has a picture and in whose place the data set has one."""
        return self.having(lambda item, reply: item.picture is not None and bool(reply.paths))

    def by_group(self) -> Iterator[Task]:
        """Each caption, story or talk as a task of its own."""
        for group in dict.fromkeys(self.groups):
            yield self.having(lambda item, _, group=group: item.group == group)

    def chunks(self) -> Iterator[Task]:
        """The task a few items at a time, so that few pictures are open at once."""
        for start in range(0, len(self.items), CHUNK):
            yield Task(self.name, self.items[start : start + CHUNK], self.replies[start : start + CHUNK])

    @property
    def pictures(self) -> list:
        """The first picture of each reply."""
        return [open_image(reply.paths[0]) for reply in self.replies]

    @property
    def true_pictures(self) -> list:
        """The picture that each item has in the data set."""
        return [open_image(item.picture) for item in self.items]

    @property
    def texts(self) -> list[str]:
        """The text of each reply."""
        return [reply.text for reply in self.replies]

    @property
    def true_texts(self) -> list[str]:
        """The text that each item has in the data set."""
        return [item.text for item in self.items]


@dataclass
class Weights:
    """Where the metrics' weights are; `None` is each metric's own place.

    Args:
        clip: for `load_clip_encoder`.
        inception: file of weights.
        sentences: folder of the sentence encoder.
        hps, pick_score: of the two learned preferences, which are left out without it.
    """

    clip: str = "ViT-L/14"
    inception: Path | None = None
    sentences: Path | None = None
    hps: Path | None = None
    pick_score: Path | None = None


class Measurements:
    """Figures of all tasks among some items.

    Args:
        items: what was asked.
        replies: holds a reply to each.
        weights: where the metrics' weights are.

    Raises:
        FileNotFoundError: if a reply is missing.
        ValueError: if all items were passed over.
    """

    def __init__(self, items: Sequence[Item], replies: ReplyFolder, weights: Weights):
        self.tasks: dict[str, Task] = {}
        self.passed_over: dict[str, str] = {}
        self.not_computed: dict[str, str] = {}
        self.notes: list[str] = []
        self._weights = weights
        self._clip = None
        for item in items:
            reason = replies.refusal(item.id)
            if reason is not None:
                self.passed_over[item.id] = reason
                continue
            task = self.tasks.setdefault(item.task, Task(item.task, [], []))
            task.items.append(item)
            task.replies.append(replies.read(item.id))
        if not self.tasks:
            name, reason = next(iter(self.passed_over.items()))
            raise ValueError(f"none of the {len(items)} items could be asked; {name}: {reason}")

    def pictures(self, tasks: Sequence[Task]) -> None:
        """CLIP-I, FID, KID and Inception Score of replies with a picture in whose place the data set has one."""
        clip = self.build("CLIP-I", lambda: ClipImageSimilarity(self._encoder()))
        fid = self.build("FID", lambda: FrechetInceptionDistance(self._weights.inception))
        kid = self.build("KID", lambda: KernelInceptionDistance(self._weights.inception))
        score = self.build("Inception Score", lambda: InceptionScore(self._weights.inception))
        largest_subset = kid.subset_size if kid else 0
        for task in tasks:
            shown = task.comparable()
            for chunk in shown.chunks():
                pictures, truths = chunk.pictures, chunk.true_pictures
                if clip:
                    clip.update(pictures, truths)
                for distance in filter(None, (fid, kid)):
                    distance.update(truths, real=True)
                    distance.update(pictures, real=False)
                if score:
                    score.update(pictures)
            count = len(shown.items)
            self._take(task, clip, shown.groups)
            self._take_of_set(task, fid, count, 2)
            if kid:
                kid.subset_size = min(largest_subset, count)
            self._take_of_set(task, kid, count, 2)
            self._take_of_set(task, score, count, SPLITS)

    def told_pictures(self, tasks: Sequence[Task]) -> None:
        """CLIP-T, and the learned preferences that have weights, of pictures and the sentences they were to show."""
        metrics = [self.build("CLIP-T", lambda: ClipTextSimilarity(self._encoder()))]
        if self._weights.hps:
            metrics.append(self.build("HPSv2", lambda: HPSv2(self._weights.hps)))
        if self._weights.pick_score:
            metrics.append(self.build("PickScore", lambda: PickScore(self._weights.pick_score)))
        for task in tasks:
            shown = task.painted()
            for chunk in shown.chunks():
                pictures = chunk.pictures
                for metric in filter(None, metrics):
                    metric.update(pictures, [item.sentence for item in chunk.items])
            for metric in metrics:
                self._take(task, metric, shown.groups)

    def texts(self, tasks: Sequence[Task]) -> None:
        """BLEU, ROUGE-L, METEOR and S-BERT similarity of replies to the data set's texts."""
        metrics = [
            self.build("BLEU", WordBLEU),
            self.build("ROUGE-L", RougeL),
            self.build("METEOR", Meteor),
            self.build("S-BERT", lambda: SentenceSimilarity(self._weights.sentences)),
        ]
        for task in tasks:
            for metric in filter(None, metrics):
                metric.update(task.texts, task.true_texts)
                self._take(task, metric, task.groups)

    def turns(self, task: Task) -> None:
        """Both definitions of MM-Relevance, and whether pictures come where the data set has one."""
        per_reply = self.build("MM-Relevance of MMDialog", lambda: MMRelevanceMMDialog(self._encoder()))
        per_turn = self.build("MM-Relevance per turn", lambda: MMRelevancePerTurn(self._encoder()))
        decision = PictureDecision()
        decision.update(
            [bool(reply.paths) for reply in task.replies], [item.picture is not None for item in task.items]
        )
        self._take(task, decision, task.groups)
        if per_reply:
            for chunk in task.chunks():
                said = [[*filter(None, [reply.text]), *reply.pictures] for reply in chunk.replies]
                true = [
                    [*filter(None, [text]), *([] if item.picture is None else [open_image(item.picture)])]
                    for item, text in zip(chunk.items, chunk.true_texts, strict=True)
                ]
                per_reply.update(said, true)
        self._take(task, per_reply, task.groups)
        for talk in task.by_group() if per_turn else ():
            said = [(reply.text, next(iter(reply.pictures), None)) for reply in talk.replies]
            true = [(item.text, item.picture and open_image(item.picture)) for item in talk.items]
            per_turn.update([said], [true])
        self._take(task, per_turn, list(dict.fromkeys(task.groups)))

    def published_bleu(self, task: Task) -> None:
        """BLEU of characters, means over the turns of a talk, then over talks."""
        try:
            scores = [character_bleu_as_published(*pair) for pair in zip(task.texts, task.true_texts, strict=True)]
        except ModuleNotFoundError as error:
            self.not_computed["BLEU as published"] = str(error)
            return
        talks = _split(task.groups, np.array([[*score.values()] for score in scores]))
        rows = np.stack([talk.mean(axis=0) for talk in talks])
        self.add_rows(task, rows, lambda rows: dict(zip(scores[0], rows.mean(axis=0).tolist(), strict=True)))
        self.notes.append(
            "character_bleu_…_as_published is what the published code computes: BLEU of characters. Unrelated English "
            "sentences score about 0.6 in it, so bleu_1 and bleu_2, of words, are the ones to read."
        )

    def published_fid(self, task: Task) -> None:
        """The mean of one FID a story."""
        shown = list(task.comparable().by_group())
        stories, truths = [story.pictures for story in shown], [story.true_pictures for story in shown]
        try:
            figure = story_fid_as_published(stories, truths, self._weights.inception)
        except (MissingWeights, ModuleNotFoundError) as error:
            self.not_computed["FID of stories as published"] = str(error)
            return
        task.figures["story_fid_as_published"] = figure
        self.notes.append(
            "story_fid_as_published is the mean of FIDs of the few pictures of one story each, in 2048 dimensions. It "
            "cannot be compared with any other FID; fid, over all pictures, is the one to read."
        )

    def build(self, name: str, make: Callable[[], Metric]) -> Metric | None:
        """A metric on this process's device, or `None` with a note of what is missing."""
        try:
            return make().to(pick_device())
        except (MissingWeights, ModuleNotFoundError) as error:
            self.not_computed[name] = str(error)
            return None

    def add_rows(
        self,
        task: Task,
        rows: np.ndarray,
        summarise: Callable[[np.ndarray], dict[str, float]],
        groups: Sequence[str] | None = None,
    ) -> None:
        """Figures of rows `(items, columns)` and their intervals; without groups each row is one of its own."""
        groups = range(len(rows)) if groups is None else groups
        task.figures |= grouped_intervals(rows, groups, summarise)

    def _encoder(self):
        if self._clip is None:
            self._clip = load_clip_encoder(self._weights.clip)
        return self._clip

    def _take(self, task: Task, metric: ItemMetric | None, groups: Sequence[str]) -> None:
        if metric is not None and len(metric.items):
            self.add_rows(task, metric.items, metric.summarise, groups)
            metric.reset()

    def _take_of_set(self, task: Task, metric: Metric | None, count: int, least: int) -> None:
        """A figure of a whole set of pictures, which has no items to resample."""
        if metric is None:
            return
        if count < least:
            self.notes.append(f"{task.name}: {type(metric).__name__} needs {least} pictures, there are {count}.")
        else:
            task.figures |= {name: value.item() for name, value in metric.compute().items()}
        metric.reset()


def grouped_intervals(
    rows: np.ndarray, groups: Sequence, summarise: Callable[[np.ndarray], dict[str, float]], seed: int = 0
) -> dict[str, Interval | float]:
    """Figures of rows, and bootstrap intervals that draw whole groups: steps of a story are not independent.

    A single group has no interval.

    Args:
        rows: `(items, columns)`.
        groups: the group of each row.
        summarise: figures of some rows, by name.
    """
    parts = _split(groups, rows)
    if len(parts) == 1:
        return summarise(rows)
    # Stacked, rows of groups of one are drawn at once.
    alone = np.concatenate(parts) if len(parts) == len(rows) else None
    draws = [
        summarise(np.concatenate([parts[i] for i in chosen]) if alone is None else alone[chosen])
        for chosen in resamples(len(parts), seed)
    ]
    return {
        # A resample of few groups may lack what a figure is taken of.
        name: Interval(value, *percentile_bounds([draw[name] for draw in draws if name in draw]))
        for name, value in summarise(rows).items()
    }


def _split(groups: Sequence, rows: np.ndarray) -> list[np.ndarray]:
    """The rows of each group, in the order in which groups first come."""
    members: dict = {}
    for row, group in enumerate(groups):
        members.setdefault(group, []).append(row)
    return [rows[chosen] for chosen in members.values()]
