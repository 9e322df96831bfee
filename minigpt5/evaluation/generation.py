"""Replies to items in batches, shared among processes, without those that are there already."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from tqdm import tqdm

from minigpt5.evaluation.items import Item
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.output import MiniGPT5PipelineOutput
from minigpt5.utils.processes import process_state, shard

System = Callable[..., MiniGPT5PipelineOutput]
"""Called as `MiniGPT5Pipeline` is: `(prompts, **options)`."""


def generate(
    system: System, items: Sequence[Item], replies: ReplyFolder, batch_size: int = 32, seed: int = 0, **options: Any
) -> int:
    """Ask a system all items that have no reply yet; returns when every process has had its share.

    Each item has a generator of its own, seeded by `seed` and its id, so a reply does not depend on what else is in its
    batch, on how many processes there are, or on whether the run was stopped in between.

    Args:
        options: of the system's call.

    Returns:
        How many replies this process made.
    """
    missing = [item for item in shard(items) if item.id not in replies]
    state = process_state()
    progress = tqdm(
        total=len(missing), desc="replies", unit="item", disable=None if state.is_main_process else True, leave=False
    )
    for batch in batches(missing, batch_size):
        output = system(
            [item.prompt() for item in batch],
            image_mode=batch[0].image_mode,
            generator=[item_generator(item.id, seed) for item in batch],
            **options,
        )
        for item, segments in zip(batch, output.segments, strict=True):
            replies.write(item.id, segments)
        progress.update(len(batch))
    progress.close()
    state.wait_for_everyone()
    return len(missing)


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


def item_generator(item_id: str, seed: int) -> torch.Generator:
    """A generator of an item's own."""
    digest = hashlib.sha256(f"{seed}/{item_id}".encode()).digest()
    # Torch takes 64 bits, of which the first would be a sign.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
