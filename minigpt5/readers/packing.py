"""Packing: conversations of different lengths are read side by side in fewer rows, with little padding."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Packing(NamedTuple):
    """Where the tokens of a padded batch stand once they are packed.

    Args:
        slots: of every token of the batch, row by row and without padding, its place in the packed batch, counted
            through: `(tokens,)`.
        tokens: of the same tokens, their places in the padded batch: `(tokens,)`.
        positions: of the packed batch, `(rows, length)`. They begin at 0 in every conversation, by which transformers
            keeps conversations of one row apart; so does every place that is empty.
        shape: of the padded batch.
    """

    slots: torch.Tensor
    tokens: torch.Tensor
    positions: torch.Tensor
    shape: torch.Size

    def pack(self, values: torch.Tensor) -> torch.Tensor:
        """`(batch, length, width)` as `(rows, length, width)`; what is empty is 0."""
        return self._moved(values, self.tokens, self.slots, self.positions.shape)

    def unpack(self, values: torch.Tensor) -> torch.Tensor:
        """`(rows, length, width)` as `(batch, length, width)`; padding is 0."""
        return self._moved(values, self.slots, self.tokens, self.shape)

    @staticmethod
    def _moved(values: torch.Tensor, source: torch.Tensor, target: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        moved = values.new_zeros(shape.numel(), values.shape[-1])
        return moved.index_copy(0, target, values.flatten(0, 1).index_select(0, source)).view(*shape, values.shape[-1])


def pack(mask: torch.Tensor) -> Packing:
    """Pack a batch of which `mask` `(batch, length)` is 1 where there is a token, in rows as long as its longest.

    Longest first, each conversation goes into the first row that has room.
    """
    lengths = mask.sum(1).tolist()
    longest, rooms, starts = max(lengths, default=0), [], [0] * len(lengths)
    for conversation in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((row for row, room in enumerate(rooms) if room >= lengths[conversation]), len(rooms))
        if row == len(rooms):
            rooms.append(longest)
        starts[conversation] = (row + 1) * longest - rooms[row]
        rooms[row] -= lengths[conversation]
    inside = mask.cumsum(1) - 1
    there = mask.bool()
    slots = (torch.tensor(starts, dtype=torch.long, device=mask.device).unsqueeze(1) + inside)[there]
    positions = torch.zeros(len(rooms) * longest, dtype=torch.long, device=mask.device)
    positions[slots] = inside[there]
    return Packing(slots, there.flatten().nonzero().flatten(), positions.view(len(rooms), longest), mask.shape)
