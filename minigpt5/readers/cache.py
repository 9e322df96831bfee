"""What a reader has read: keys and values, and which tokens at which positions they are of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass
class ReaderCache:
    """What a reader has read of a batch of rows; empty until a reader fills it.

    Args:
        states: keys and values of all layers, or whatever else the language model remembers; a cache of transformers.
        ids, mask: tokens `(batch, length)`, and 1 where there are any.
        positions: `(batch, length)`, or `(axes, batch, length)` where they have several axes.
        pictures: what tells the pictures of a single row from others, in order.
        source: what tells the model by which they were read, and its weights, from others.
    """

    states: Any = None
    ids: Any = None
    mask: Any = None
    positions: Any = None
    pictures: list[bytes] = field(default_factory=list)
    source: Any = None

    def __len__(self) -> int:
        return 0 if self.ids is None else self.ids.shape[1]

    def next_positions(self) -> torch.Tensor | int:
        """The position `(batch, 1)` of each row's next token."""
        if self.positions is None:
            return 0
        positions = self.positions if self.positions.ndim == 2 else self.positions.amax(0)
        return positions.masked_fill(self.mask == 0, -1).amax(1, keepdim=True) + 1

    def after(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Ids, mask and positions with more tokens behind them; the cache itself stays as it is."""
        if self.ids is None:
            return ids, mask, positions
        ids, mask = torch.cat([self.ids, ids], dim=1), torch.cat([self.mask, mask], dim=1)
        return ids, mask, torch.cat([self.positions, positions], dim=-1)

    def crop(self, length: int) -> None:
        """Forget all tokens but the first `length`."""
        if length < len(self):
            self.states.crop(length - len(self))
            self.ids, self.mask = self.ids[:, :length], self.mask[:, :length]
            self.positions = self.positions[..., :length]

    def clear(self) -> None:
        """Forget everything."""
        self.states = self.ids = self.mask = self.positions = self.source = None
        self.pictures = []
