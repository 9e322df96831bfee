"""Figures of replies, by task: each metric of the registry whose needs are there, with bootstrap intervals.

What cannot be computed, because its weights or its library are missing, is noted with the reason and left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torchmetrics import Metric

from minigpt5.evaluation.items import Item
from minigpt5.evaluation.replies import Reply, ReplyFolder
from minigpt5.metrics import MissingWeights, load_clip_encoder
from minigpt5.metrics.intervals import Interval, bootstrap_intervals
from minigpt5.metrics.items import ItemMetric
from minigpt5.metrics.registry import METRICS, MetricEntry
from minigpt5.utils.images import open_image
from minigpt5.utils.processes import pick_device

# Of fewer a bootstrap is too sure: of five its intervals of 95 % hold in 84 %.
FEWEST_GROUPS = 20
# Items whose pictures are open at a time.
CHUNK = 64

Column = Callable[[Item, Reply], Any]
"""What an item and its reply have of something that metrics need: `None` for nothing, a `Path` for a picture."""


def _replied_turn(item: Item, reply: Reply) -> tuple[str, Path | None]:
    return reply.text, next(iter(reply.paths), None)


def _true_text(item: Item, reply: Reply) -> str | tuple[str, ...] | None:
    # To a picture without a word, no text is near or far.
    return item.captions or (item.text if item.text and not item.text.isspace() else None)


COLUMNS: dict[str, Column] = {
    "picture": lambda item, reply: next(iter(reply.paths), None),
    "true picture": lambda item, reply: item.picture and Path(item.picture),
    "sentence": lambda item, reply: item.sentence,
    # Where the sentence is given, there is nothing to say.
    "text": lambda item, reply: reply.text if item.sentence is None else None,
    "true text": _true_text,
    "answers": lambda item, reply: item.answers or None,
    # VQA's accuracy leaves one out in turn.
    "answers of several": lambda item, reply: item.answers if len(item.answers) > 1 else None,
    "true box": lambda item, reply: item.box,
    "turn": _replied_turn,
    "true turn": lambda item, reply: (item.text, item.picture and Path(item.picture)),
    "segments": lambda item, reply: [*filter(None, [reply.text]), *reply.paths],
    "true segments": lambda item, reply: [*filter(None, [item.text]), *([Path(item.picture)] if item.picture else [])],
    "has picture": lambda item, reply: bool(reply.paths),
    "wants picture": lambda item, reply: item.picture is not None,
}

# Columns of which a group has one value, not one an item.
OF_GROUP = {"hero"}


@dataclass
class TaskReplies:
    """The items of one task with their replies, and their figures so far."""

    name: str
    items: list[Item] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    figures: dict[str, Interval | float] = field(default_factory=dict)

    @property
    def groups(self) -> list[str]:
        """The group of each item."""
        return [item.group for item in self.items]

    @property
    def pictures(self) -> int:
        """How many replies have a picture."""
        return sum(bool(reply.paths) for reply in self.replies)

    def column(self, name: str, columns: Mapping[str, Column]) -> list[Any]:
        """A column's value for each item, pictures unopened; of texts none where a system paints and never speaks."""
        values = [columns[name](item, reply) for item, reply in zip(self.items, self.replies, strict=True)]
        speaks = any(values) or all(item.image_mode == "never" for item in self.items)
        return values if name != "text" or speaks else [None] * len(values)


@dataclass
class Weights:
    """Where the metrics' weights are; `None` is each metric's own place.

    Args:
        clip: for `load_clip_encoder`.
        inception: file of weights.
        sentences: folder of the sentence encoder.
        hps, pick_score: of the two learned preferences, which are left out without it.
    """

    clip: Any = "ViT-L/14"
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
        columns: further columns, by name: of data that more is known of.

    Raises:
        FileNotFoundError: if a reply is missing.
        ValueError: if all items were passed over.
    """

    def __init__(
        self,
        items: Sequence[Item],
        replies: ReplyFolder,
        weights: Weights,
        columns: Mapping[str, Column] | None = None,
    ):
        self.tasks: dict[str, TaskReplies] = {}
        self.passed_over: dict[str, str] = {}
        self.not_computed: dict[str, str] = {}
        self.notes: list[str] = []
        self.columns = COLUMNS | dict(columns or {})
        self._weights = weights
        self._metrics: dict[str, Metric | None] = {}
        for item in items:
            reason = replies.refusal(item.id)
            if reason is not None:
                self.passed_over[item.id] = reason
                continue
            task = self.tasks.setdefault(item.task, TaskReplies(item.task))
            task.items.append(item)
            task.replies.append(replies.read(item.id))
        if not self.tasks:
            name, reason = next(iter(self.passed_over.items()))
            raise ValueError(f"none of the {len(items)} items could be asked; {name}: {reason}")

    def measure(self) -> None:
        """Take the figures of every task by every metric that it has all needs of."""
        for task in self.tasks.values():
            asked = [entry for entry in METRICS if self._is_asked(entry, task)]
            there = {name: task.column(name, self.columns) for entry in asked for name in entry.needs}
            chosen = {entry: _having(there, entry.needs) for entry in asked}
            metrics = {entry: metric for entry in asked if chosen[entry] and (metric := self._metric(entry))}
            groups: dict[MetricEntry, list[str]] = {entry: [] for entry in metrics}
            for rows in self._chunks(task, metrics):
                opened: dict[tuple[str, int], Any] = {}
                for entry, metric in metrics.items():
                    mine = [row for row in rows if row in chosen[entry]]
                    if mine:
                        columns = [[_opened(there, name, row, opened) for row in mine] for name in entry.needs]
                        groups[entry] += _update(entry, metric, columns, [task.items[row].group for row in mine])
            for entry, metric in metrics.items():
                self._take(task, entry, metric, len(chosen[entry]), groups[entry])
            independent = len(set(task.groups))
            if 1 < independent < FEWEST_GROUPS:
                self.notes.append(
                    f"{task.name}: intervals of {independent} independent items are too narrow, "
                    f"take {FEWEST_GROUPS} or more."
                )

    def _is_asked(self, entry: MetricEntry, task: TaskReplies) -> bool:
        wanted = not entry.on_request or getattr(self._weights, entry.weights or "") is not None
        return wanted and task.name in (entry.tasks or self.tasks) and set(entry.needs) <= self.columns.keys()

    def _metric(self, entry: MetricEntry) -> Metric | None:
        """A metric on this process's device, empty; or `None` with a note of what is missing."""
        if entry.name not in self._metrics:
            try:
                self._metrics[entry.name] = entry.build(self._weights_of(entry)).to(pick_device())
            except (MissingWeights, ModuleNotFoundError) as error:
                self.not_computed[entry.name] = str(error)
                self._metrics[entry.name] = None
        return self._metrics[entry.name]

    def _weights_of(self, entry: MetricEntry) -> Any:
        if entry.weights == "clip":
            # Loaded once for all that compare by it.
            self._weights.clip = load_clip_encoder(self._weights.clip)
        return entry.weights and getattr(self._weights, entry.weights)

    @staticmethod
    def _chunks(task: TaskReplies, metrics: Mapping[MetricEntry, Metric]) -> Iterator[list[int]]:
        """Rows a few at a time, so that few pictures are open at once; whole groups where a metric wants them."""
        members: dict[str, list[int]] = {}
        for row, group in enumerate(task.groups):
            members.setdefault(group, []).append(row)
        rows: list[int] = []
        for group in members.values():
            rows += group
            if len(rows) >= CHUNK:
                yield rows
                rows = []
        if rows:
            yield rows

    def _take(self, task: TaskReplies, entry: MetricEntry, metric: Any, count: int, groups: Sequence[str]) -> None:
        """Figures of what a metric was given, which is then emptied."""
        if isinstance(metric, ItemMetric):
            if len(metric.items):
                task.figures |= figures_of(metric, groups)
        elif count < metric.least:
            self.notes.append(f"{task.name}: {type(metric).__name__} needs {metric.least} pictures, there are {count}.")
        else:
            task.figures |= {name: value.item() for name, value in metric.compute().items()}
        if entry.note and entry.note not in self.notes:
            self.notes.append(entry.note)
        metric.reset()


def figures_of(metric: ItemMetric, groups: Sequence[str]) -> dict[str, Interval | float]:
    """Figures with intervals that draw whole groups: steps of a story are not independent. One group has none."""
    if len(set(groups)) == 1:
        return dict(metric.summarise(metric.items))
    return dict(bootstrap_intervals(metric.items, metric.summarise, groups))


def _having(columns: Mapping[str, Sequence[Any]], needs: Sequence[str]) -> set[int]:
    """The rows that have all of some columns."""
    return {
        row for row, values in enumerate(zip(*(columns[name] for name in needs), strict=True)) if None not in values
    }


def _opened(columns: Mapping[str, Sequence[Any]], name: str, row: int, opened: dict[tuple[str, int], Any]) -> Any:
    """A column's value with its pictures opened, once for all metrics."""
    if (name, row) not in opened:
        opened[name, row] = _with_pictures(columns[name][row])
    return opened[name, row]


def _with_pictures(value: Any) -> Any:
    if isinstance(value, Path):
        return open_image(value)
    return type(value)(map(_with_pictures, value)) if isinstance(value, (list, tuple)) else value


def _update(entry: MetricEntry, metric: Any, columns: list[list[Any]], groups: list[str]) -> list[str]:
    """Give a metric what it needs of some items; returns the group of each row that this left."""
    if entry.level == "set":
        (metric.update_both if len(columns) == 2 else metric.update)(*columns)
        return []
    if entry.level == "item":
        metric.update(*columns)
        return groups
    left = []
    for group in dict.fromkeys(groups):
        rows = [row for row, its_group in enumerate(groups) if its_group == group]
        before = len(metric.items)
        metric.update(
            *(
                [column[rows[0]]] if name in OF_GROUP else [[column[row] for row in rows]]
                for name, column in zip(entry.needs, columns, strict=True)
            )
        )
        left += [group] * (len(metric.items) - before)
    return left
