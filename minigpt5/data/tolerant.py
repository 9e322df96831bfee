"""Rows that cannot be used are passed over and counted, and too many of them stop the run.

`tolerate(rows)` wraps what a reader opened. In place of a row with a missing or broken picture of a `Dataset` comes
another, drawn by the wrapper's seed and the bad row's index alone: a run that is resumed sees what it would have seen.
A stream leaves the row out.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

import torch
from datasets import Dataset, Features, Image, IterableDataset, List
from transformers import BatchFeature

from minigpt5.utils.images import ImageError, open_image

logger = logging.getLogger(__name__)

Asked = TypeVar("Asked")
Reply = TypeVar("Reply")

# Before so many rows were read, a share says little.
FEW = 100


class TooManyBadRows(ValueError):
    """More rows cannot be used than may; the message says how many, and names the first."""


class BadRows:
    """The count of the rows that one process has read, and of those that cannot be used.

    Args:
        max_share: of the rows read, of which `FEW` are taken for granted, that may be bad.
        kind: what is counted.
    """

    def __init__(self, max_share: float, kind: str = "rows read so far"):
        if not 0 <= max_share < 1:
            raise ValueError(f"max_bad_share is at least 0 and less than 1, got {max_share}")
        self.max_share, self.kind = max_share, kind
        self.read = self.bad = 0
        self.first: list[str] = []

    def add(self, problem: str) -> None:
        """Count one of the rows read as bad.

        Raises:
            TooManyBadRows: if that is one too many.
        """
        self.bad += 1
        if problem not in self.first and len(self.first) < 5:
            self.first.append(problem)
        if str(self.bad).strip("0") == "1":  # the first, the tenth, the hundredth
            logger.warning("%d of the %d %s cannot be used: %s", self.bad, self.read, self.kind, problem)
        if self.bad > self.max_share * max(self.read, FEW):
            raise TooManyBadRows(
                f"{self.bad} of the {self.read} {self.kind} cannot be used, and {self.max_share:.2%} may "
                "(max_bad_share). They are:\n  " + "\n  ".join(self.first)
            )


def open_row(row: dict[str, Any], features: Features) -> dict[str, Any]:
    """A row as it is stored, `{"path": …, "bytes": …}` for a picture, with its pictures opened as RGB.

    Raises:
        ImageError: naming a picture that is missing or broken, or a column without a value.
    """
    for name in features:
        if row[name] is None:
            # In a shard the picture's name tells which.
            known = [value["path"] for value in row.values() if isinstance(value, dict) and value.get("path")]
            raise ImageError(f"{known[0] if known else str(row)[:80]}: no {name}")
    return {name: _open(row[name], feature) for name, feature in features.items()}


def _open(value: Any, feature: Any) -> Any:
    if value is None:
        return None
    if isinstance(feature, Image):
        return open_image(value["path"] if value["bytes"] is None else value["bytes"], name=value["path"])
    if isinstance(feature, List):
        return [_open(item, feature.feature) for item in value]
    if isinstance(feature, dict):
        return {name: _open(value[name], part) for name, part in feature.items()}
    return value


class TolerantDataset(torch.utils.data.Dataset):
    """A map-style data set whose every row can be read."""

    def __init__(self, rows: Dataset, max_bad_share: float, seed: int):
        self.rows, self.seed = rows, seed
        self.count = BadRows(max_bad_share)
        self._stored = rows.with_format("arrow")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        rng = random.Random(f"{self.seed}/{index}")
        while True:
            row = cast(Any, self._stored[index]).to_pylist()[0]
            self.count.read += 1
            try:
                return open_row(row, self.rows.features)
            except ImageError as error:
                self.count.add(str(error))
            index = rng.randrange(len(self.rows))

    def drawn(self, number: int) -> dict[str, Any]:
        """A row of an endless order, shuffled by the seed: every row comes once before any comes twice."""
        epoch, place = divmod(number, len(self))
        return self[int(_order(len(self), self.seed * 1_000_003 + epoch)[place])]


@lru_cache(maxsize=16)
def _order(length: int, seed: int) -> torch.Tensor:
    return torch.randperm(length, generator=torch.Generator().manual_seed(seed))


class TolerantStream(torch.utils.data.IterableDataset):
    """A streamed data set without the rows that cannot be read."""

    def __init__(self, rows: IterableDataset, max_bad_share: float):
        self.features = cast(Features, rows.features)
        self.count = BadRows(max_bad_share)
        self._stored = rows.decode(False)

    def set_epoch(self, epoch: int) -> None:
        """Shuffle anew, in an order that the epoch says."""
        self._stored.set_epoch(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for stored in self._stored:
            self.count.read += 1
            try:
                row = open_row(stored, self.features)
            except ImageError as error:
                self.count.add(str(error))
                continue
            yield row


def tolerate(
    rows: Dataset | IterableDataset, max_bad_share: float = 0.01, seed: int = 0
) -> TolerantDataset | TolerantStream:
    """What a reader opened, without its bad pictures; each process counts those that it meets in `count`.

    Args:
        max_bad_share: share of the rows read that may be bad; of less than 100 rows as of 100.
        seed: draws the rows that stand in for bad ones.
    """
    if isinstance(rows, IterableDataset):
        return TolerantStream(rows, max_bad_share)
    return TolerantDataset(rows, max_bad_share, seed)


def usable(
    candidates: Sequence[Iterator[Asked]],
    encode: Callable[[Sequence[Asked]], BatchFeature],
    context: int,
    pass_over: Callable[[int, Asked, str], None],
) -> tuple[list[Asked], BatchFeature]:
    """Of each of some sequences the next item that can be encoded, and all of them encoded.

    Args:
        encode: makes a batch of as many conversations of each item as of any, all first ones before all second ones.
        context: tokens of a conversation that the model has positions for.
        pass_over: is told the place of a sequence, an item of it that cannot be encoded or is too long, and why.
    """
    taken = [next(items) for items in candidates]
    while True:
        batch, refused = _encoded(taken, encode, context)
        if batch is not None and not refused:
            return taken, batch
        for place, problem in refused.items():
            pass_over(place, taken[place], problem)
            taken[place] = next(candidates[place])


def _encoded(
    items: Sequence[Asked], encode: Callable[[Sequence[Asked]], BatchFeature], context: int
) -> tuple[BatchFeature | None, dict[int, str]]:
    """Items as a batch, or what is wrong with which of them."""
    try:
        batch = encode(items)
    except ValueError as error:
        if len(items) == 1:
            return None, {0: str(error)}
        # One of them is at fault: which, each says for itself.
        alone = {place: _encoded([item], encode, context)[1] for place, item in enumerate(items)}
        refused = {place: problem[0] for place, problem in alone.items() if problem}
        if not refused:
            raise
        return None, refused
    lengths = enumerate(batch["attention_mask"].sum(1).tolist())
    told = f"tokens long, and the model's context holds {context}"
    return batch, {place % len(items): f"{length} {told}" for place, length in lengths if length > context}


def answered(
    ask: Callable[[Sequence[Asked]], Sequence[Reply]], asked: Sequence[Asked]
) -> Iterator[tuple[Asked, Reply | ValueError]]:
    """Each of what is asked together with its reply, or with why it cannot be asked, and no other's fault."""
    if not asked:
        return
    try:
        replies = ask(asked)
    except ValueError as error:
        if len(asked) == 1:
            yield asked[0], error
            return
        # One of them is at fault: which, each says for itself.
        for one in asked:
            yield from answered(ask, [one])
        return
    yield from zip(asked, replies, strict=True)
