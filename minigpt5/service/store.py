"""What was read before and may be read again, as much as fits into so many bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Any, Generic, TypeVar

import torch
from transformers import BatchFeature

from minigpt5.readers import Reader, ReaderCache

T = TypeVar("T")


class Store(Generic[T]):
    """Values by keys, of which those that were used least recently are forgotten.

    Args:
        limit: bytes that all values may take together.
    """

    def __init__(self, limit: int):
        self.limit, self.nbytes = limit, 0
        self._kept: OrderedDict[Hashable, tuple[T, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def values(self) -> list[tuple[Any, T]]:
        """Keys and values, the most recent last."""
        return [(key, value) for key, (value, _) in self._kept.items()]

    def get(self, key: Hashable) -> T | None:
        """A value, which counts as used."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return self._kept[key][0]

    def put(self, key: Hashable, value: T, nbytes: int) -> None:
        """Keep a value of so many bytes; one that is larger than the limit is not kept."""
        if key in self._kept:
            self.nbytes -= self._kept.pop(key)[1]
        if nbytes > self.limit:
            return
        self._kept[key] = value, nbytes
        self.nbytes += nbytes
        while self.nbytes > self.limit:
            _, (_, freed) = self._kept.popitem(last=False)
            self.nbytes -= freed


class Memory:
    """What a reader has read: conversations by how they begin, and pictures' features by their pixels.

    Args:
        reader: whose weights stay as they are.
        limit: bytes for all of it; half of them for each of the two.
    """

    def __init__(self, reader: Reader, limit: int):
        self.reader = reader
        self.conversations: Store[ReaderCache] = Store(limit // 2)
        self.pictures: Store[torch.Tensor] = Store(limit // 2)

    def recall(self, inputs: BatchFeature, keys: list[bytes]) -> ReaderCache:
        """A copy of the conversation that a prompt goes on with for the longest, or an empty cache.

        Args:
            inputs, keys: of `Reader.encode` and `Reader.picture_keys`.
        """
        held, best = 0, None
        ids = inputs["input_ids"].cpu().numpy()
        asked, size = ids.tobytes(), ids.itemsize
        for key, cache in self.conversations.values():
            # The reader takes a hundred times as long to tell, so it is asked only of what begins alike for longer.
            if not key[0].startswith(asked[: size * (held + 1)]):
                continue
            if (length := self.reader.held(cache, inputs, keys)) > held:
                held, best = length, key
        found = None if best is None else self.conversations.get(best)
        if found is None:
            return ReaderCache()
        copy = found.select([0])
        copy.pictures, copy.source = found.pictures, found.source
        return copy

    def keep(self, cache: ReaderCache) -> None:
        """Keep what one row has read."""
        key = (cache.ids.cpu().numpy().tobytes(), *cache.pictures)
        self.conversations.put(key, cache, cache.nbytes)

    def picture_features(self, inputs: BatchFeature, keys: list[bytes]) -> tuple[torch.Tensor | None, int]:
        """Features of a prompt's pictures, and how many were known; `None` where the reader cannot tell them apart.

        Args:
            keys: of the pictures that `inputs` hold.
        """
        compute = getattr(self.reader, "picture_features", None)
        if compute is None or not keys or len(inputs.get("pixel_values", ())) != len(keys):
            return None, 0
        known = [self.pictures.get(key) for key in keys]
        new = [place for place, features in enumerate(known) if features is None]
        if new:
            rows = {name: inputs[name][new] for name in inputs if name not in ("input_ids", "attention_mask")}
            for place, features in zip(new, compute(BatchFeature(rows)), strict=True):
                known[place] = features
                self.pictures.put(keys[place], features.clone(), features.nbytes)
        return torch.stack([features for features in known if features is not None]), len(keys) - len(new)
