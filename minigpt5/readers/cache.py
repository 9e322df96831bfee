"""What a reader has read: keys and values, and which tokens at which positions they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


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

    # Rows that come and go

    @property
    def joins(self) -> bool:
        """Whether rows can be taken out and others put beside them: of every token keys and values are here."""
        layers = getattr(self.states, "layers", [])
        return bool(layers) and all(type(layer) is DynamicLayer and layer.is_initialized for layer in layers)

    @property
    def _ahead(self) -> int:
        """Keys of a prefix, that are of no token."""
        return self.states.get_seq_length() - len(self)

    @property
    def nbytes(self) -> int:
        """Bytes that keys and values take."""
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in self.states.layers)

    def select(self, rows: Sequence[int]) -> ReaderCache:
        """A copy that holds some rows alone, without the places on the left at which none of them has a token."""
        rows = list(rows)
        mask, ahead = self.mask[rows], self._ahead
        empty = int((mask.cumsum(1) == 0).sum(1).min())
        keep = [*range(ahead), *range(ahead + empty, ahead + len(self))]
        states = DynamicCache()
        for number, layer in enumerate(self.states.layers):
            states.update(layer.keys[rows][:, :, keep], layer.values[rows][:, :, keep], number)
        positions = self.positions[..., rows, :][..., empty:]
        return ReaderCache(states, self.ids[rows][:, empty:], mask[:, empty:], positions)

    @classmethod
    def joined(cls, caches: Sequence[ReaderCache]) -> ReaderCache:
        """All rows of several caches of one model, the shorter ones padded on the left."""
        length = max(map(len, caches))
        states = DynamicCache()
        for number in range(len(caches[0].states.layers)):
            layers = [(cache.states.layers[number], cache._ahead, length - len(cache)) for cache in caches]
            keys = torch.cat([_padded(layer.keys, ahead, missing) for layer, ahead, missing in layers])
            values = torch.cat([_padded(layer.values, ahead, missing) for layer, ahead, missing in layers])
            states.update(keys, values, number)

        def of_tokens(name: str, axis: int) -> torch.Tensor:
            return torch.cat([pad(getattr(cache, name), (length - len(cache), 0)) for cache in caches], axis)

        return cls(states, of_tokens("ids", 0), of_tokens("mask", 0), of_tokens("positions", -2))


def _padded(states: torch.Tensor, ahead: int, missing: int) -> torch.Tensor:
    """Keys or values `(batch, heads, length, width)` with places for more tokens, which are masked, behind a prefix."""
    if not missing:
        return states
    nothing = states.new_zeros(*states.shape[:2], missing, states.shape[3])
    return torch.cat([states[:, :, :ahead], nothing, states[:, :, ahead:]], dim=2)
