"""Replies to items in batches, shared among processes or Ray's actors, without those that are there already.

An item that cannot be asked ends nothing: it is passed over, counted and noted.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tqdm import tqdm

from minigpt5.data.tolerant import BadRows, answered
from minigpt5.evaluation.items import Item
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.output import Segment
from minigpt5.readers.processor import Prompt
from minigpt5.utils.actors import ActorSettings, map_in_actors
from minigpt5.utils.images import ImageError, open_image
from minigpt5.utils.processes import process_state, shard
from minigpt5.utils.randomness import named_generator

System = Callable[..., Any]
"""Called as `MiniGPT5Pipeline` is, `(prompts, **options)`, and gives a `MiniGPT5PipelineOutput`."""


def generate(
    load: Callable[[], System],
    items: Sequence[Item],
    replies: ReplyFolder,
    batch_size: int = 32,
    seed: int = 0,
    max_bad_share: float = 0.01,
    actors: ActorSettings | None = None,
    **options: Any,
) -> int:
    """Ask a system all items that have no reply yet; returns when every process has had its share.

    Each item has a generator of its own, seeded by `seed` and its id, so a reply does not depend on what else is in its
    batch, on how many processes or actors there are, or on whether the run was stopped in between.

    An item that cannot be asked (one of its pictures is missing or broken, or the system refuses it with a
    `ValueError`, as where it is too long) is passed over, and noted in the folder in the place of its reply.

    Args:
        load: opens the system, where something is left to ask; with Ray in each actor, so it can be pickled.
        batch_size: items that are asked at a time, over all processes; with Ray by each actor.
        max_bad_share: share of the items that may be passed over; of less than 100 items as of 100.
        actors: whether those of a Ray cluster ask; this process writes what they reply.
        options: of the system's call.

    Returns:
        How many replies this process made.

    Raises:
        TooManyBadRows: if more are passed over; names the first.
    """
    own = shard(items)
    missing = [item for item in own if item.id not in replies]
    state = process_state()
    count = BadRows(max_bad_share, "items")
    # Of all, as the longest come first: those that are too long come in a row.
    count.read = len(own)
    with tqdm(
        total=len(missing), desc="replies", unit="item", disable=None if state.is_main_process else True, leave=False
    ) as progress:
        asked = list(batches(missing, len(shard(range(batch_size)))))
        for answers in map_in_actors(_Asker(load, seed, options), asked, actors or ActorSettings()):
            for item_id, reply in answers:
                if isinstance(reply, str):
                    replies.refuse(item_id, reply)
                    count.add(f"{item_id}: {reply}")
                else:
                    replies.write(item_id, reply)
                progress.update()
    state.wait_for_everyone()
    return len(missing) - count.bad


def check_pictures(items: Sequence[Item], max_bad_share: float) -> None:
    """Stop a run before its model is opened, where more pictures are missing than may.

    Raises:
        TooManyBadRows: naming the first.
    """
    count = BadRows(max_bad_share, "items")
    count.read = len(items)
    for item in items:
        missing = next((path for path in item.paths if not os.path.isfile(path)), None)
        if missing:
            count.add(f"{item.id}: {missing}: no such file")


@dataclass
class _Asker:
    """Called with a batch of items, gives each's id with its reply, or with why it cannot be asked."""

    load: Callable[[], System]
    seed: int
    options: Mapping[str, Any]

    @cached_property
    def system(self) -> System:
        return self.load()

    def __call__(self, batch: Sequence[Item]) -> list[tuple[str, list[Segment] | str]]:
        # What is wrong with the system is no fault of the items.
        system = self.system
        opened: list[tuple[Item, Prompt]] = []
        told: list[tuple[str, list[Segment] | str]] = []
        for item in batch:
            try:
                if item.picture is not None:
                    # Figures are taken of it.
                    open_image(item.picture)
                opened.append((item, item.prompt()))
            except ImageError as error:
                told.append((item.id, str(error)))

        def replies(asked: Sequence[tuple[Item, Prompt]]) -> list[list[Segment]]:
            return system(
                [prompt for _, prompt in asked],
                image_mode=asked[0][0].image_mode,
                generator=[named_generator(item.id, self.seed) for item, _ in asked],
                **self.options,
            ).segments

        for (item, _), reply in answered(replies, opened):
            told.append((item.id, str(reply) if isinstance(reply, ValueError) else reply))
        return told


def batches(items: Sequence[Item], batch_size: int) -> Iterator[list[Item]]:
    """Items of one image mode and of like length together, so that little is padded; the longest first."""
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    for mode in sorted({item.image_mode for item in items}):
        alike = sorted((item for item in items if item.image_mode == mode), key=_length, reverse=True)
        for start in range(0, len(alike), batch_size):
            yield alike[start : start + batch_size]


def _length(item: Item) -> tuple[int, int]:
    """Pictures, then characters."""
    texts = [item.sentence, *(text for text, _ in item.context)]
    return sum(path is not None for _, path in item.context), sum(len(text or "") for text in texts)
