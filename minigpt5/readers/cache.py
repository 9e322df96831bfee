"""What a reader has read: keys and values, and which tokens at which positions they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """Keys and values with room behind them, into which further tokens are written.

    A `DynamicLayer` copies all that was read at every token. Here that happens when the room is used up, and when
    something else than `update` and `crop` has put other keys and values in the place of these.
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._rooms: dict[str, torch.Tensor] = {}

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put more keys and values behind those that are here, and return all; see `DynamicLayer`."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            # What is to be differentiated must stay as it is, and a graph knows no room.
            return super().update(key_states, value_states, *args, **kwargs)
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys, self.values = self._behind("keys", key_states), self._behind("values", value_states)
        return self.keys, self.values

    def _behind(self, name: str, new: torch.Tensor) -> torch.Tensor:
        held, room = getattr(self, name), self._rooms.get(name)
        length = held.shape[-2] if held.numel() else 0
        whole = length + new.shape[-2]
        if room is None or held._base is not room or room.shape[-2] < whole:
            # A prompt is often all that is kept.
            room = new.new_empty(*new.shape[:-2], whole + max(64, whole // 4) if length else whole, new.shape[-1])
            if length:
                room[..., :length, :] = held
            self._rooms[name] = room
        room[..., length:whole, :] = new
        return room[..., :whole, :]

    def reset(self) -> None:
        """Forget everything."""
        super().reset()
        self._rooms = {}


def new_states(config: Any = None) -> DynamicCache:
    """An empty cache of transformers, of the layers that a configuration tells or of plain ones."""
    states = DynamicCache(config=config)
    states.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in states.layers]
    if states.layer_class_to_replicate is DynamicLayer:
        states.layer_class_to_replicate = RoomyLayer
    return states


@dataclass
class ReaderCache:
    """What a reader has read of a batch of rows; empty until a reader fills it.

    Args:
        states: keys and values of all layers, or whatever else the language model remembers; a cache of transformers.
        ids, mask: tokens `(batch, length)`, and 1 where there are any.
        positions: `(batch, length)`, or `(axes, batch, length)` where they have several axes.
        full: whether no row has a place without a token, as far as is known.
        pictures: what tells the pictures of a single row from others, in order.
        coming: what `pictures` will be when what comes next is read, which may be broken off.
        source: what tells the model by which they were read, and its weights, from others.
    """

    states: Any = field(default=None, repr=False)
    ids: Any = field(default=None, repr=False)
    mask: Any = field(default=None, repr=False)
    positions: Any = field(default=None, repr=False)
    full: bool = True
    pictures: list[bytes] = field(default_factory=list)
    coming: list[bytes] | None = None
    source: Any = field(default=None, repr=False)

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

    def require_untouched(self, ids: torch.Tensor | None) -> None:
        """See that nothing else has been read with it, or forgotten, since it held these `ids`.

        Raises:
            RuntimeError: if something has.
        """
        if self.ids is not ids:
            raise RuntimeError(
                "another call has used this prompt_cache while a stream was reading with it; give each its own "
                "ReaderCache(), or take the stream to its end first"
            )

    def clear(self) -> None:
        """Forget everything."""
        self.states = self.ids = self.mask = self.positions = self.coming = self.source = None
        self.full, self.pictures = True, []

    # Rows that come and go

    @property
    def joins(self) -> bool:
        """Whether rows can be taken out and others put beside them: of every token keys and values are here."""
        layers = getattr(self.states, "layers", [])
        return bool(layers) and all(type(layer) is RoomyLayer and layer.is_initialized for layer in layers)

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
        states = new_states()
        for number, layer in enumerate(self.states.layers):
            states.update(layer.keys[rows][:, :, keep], layer.values[rows][:, :, keep], number)
        positions = self.positions[..., rows, :][..., empty:]
        mask = mask[:, empty:]
        return ReaderCache(states, self.ids[rows][:, empty:], mask, positions, full=bool(mask.all()))

    @classmethod
    def joined(cls, caches: Sequence[ReaderCache]) -> ReaderCache:
        """All rows of several caches of one model, the shorter ones padded on the left."""
        length = max(map(len, caches))
        states = new_states()
        for number in range(len(caches[0].states.layers)):
            layers = [(cache.states.layers[number], cache._ahead, length - len(cache)) for cache in caches]
            keys = torch.cat([_padded(layer.keys, ahead, missing) for layer, ahead, missing in layers])
            values = torch.cat([_padded(layer.values, ahead, missing) for layer, ahead, missing in layers])
            states.update(keys, values, number)

        def of_tokens(name: str, axis: int) -> torch.Tensor:
            return torch.cat([pad(getattr(cache, name), (length - len(cache), 0)) for cache in caches], axis)

        full = all(cache.full and len(cache) == length for cache in caches)
        return cls(states, of_tokens("ids", 0), of_tokens("mask", 0), of_tokens("positions", -2), full)


def _padded(states: torch.Tensor, ahead: int, missing: int) -> torch.Tensor:
    """Keys or values `(batch, heads, length, width)` with places for more tokens, which are masked, behind a prefix."""
    if not missing:
        return states
    nothing = states.new_zeros(*states.shape[:2], missing, states.shape[3])
    return torch.cat([states[:, :, :ahead], nothing, states[:, :, ahead:]], dim=2)
