"""What frozen parts make of a picture or a caption, kept on disk: a later epoch fetches it instead of computing it.

Entries are found by their content and by the content of the part that made them, so nothing stale is ever read. Each
batch of new entries is one safetensors file with a checksum of each, written under a temporary name: several processes
may share a folder, one that is killed leaves nothing half-written, and what the disk has changed is computed anew.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from minigpt5.utils.files import whole_file
from minigpt5.utils.images import Picture, to_rgb

logger = logging.getLogger(__name__)


def content_key(content: str | torch.Tensor | Picture) -> str:
    """What tells one text, tensor or picture from another: 32 hexadecimal digits.

    A tensor's has its shape and type in it, a picture's its size. Pixels as a model reads them also tell how they were
    prepared, and token ids by which tokenizer; both make better keys than the picture and the text themselves.
    """
    digest = hashlib.blake2b(digest_size=16)
    if isinstance(content, str):
        digest.update(content.encode())
    elif isinstance(content, torch.Tensor):
        _add(digest, content)
    else:
        image = to_rgb(content)
        digest.update(f"{image.size}".encode())
        digest.update(image.tobytes())
    return digest.hexdigest()


def part_key(*parts: nn.Module | torch.Tensor, **settings: Any) -> str:
    """What tells one frozen part from another: weights, configuration and whatever settings change its output.

    Args:
        parts: all that the output depends on, modules with their `config` where they have one.
        settings: plain values such as the size to which pictures are brought.

    Raises:
        ValueError: if one of them is being trained; what it made would be stale at the next step.
    """
    digest = hashlib.blake2b(json.dumps(settings, sort_keys=True).encode(), digest_size=16)
    for part in parts:
        tensors = {"": part} if isinstance(part, torch.Tensor) else part.state_dict(keep_vars=True)
        for name, tensor in sorted(tensors.items()):
            if tensor.requires_grad:
                raise ValueError(
                    f"{type(part).__name__}{'.' * bool(name)}{name} is being trained, so that its features cannot be "
                    "cached; freeze it with requires_grad_(False), or train without the cache"
                )
            digest.update(name.encode())
            _add(digest, tensor)
        digest.update(json.dumps(_settled(getattr(part, "config", {})), sort_keys=True, default=str).encode())
    return digest.hexdigest()


def _add(digest: Any, tensor: torch.Tensor) -> None:
    digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
    digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


def _settled(config: Any) -> dict[str, Any]:
    """A configuration without what a library's version or a folder's name puts into it."""
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    passing = ("transformers_version", "dtype", "torch_dtype", "architectures")
    return {
        str(name): _settled(value) if isinstance(value, dict) else value
        for name, value in values.items()
        if not str(name).startswith("_") and name not in passing
    }


class FeatureCache:
    """The outputs of one frozen part, by the content of its inputs.

        moments = FeatureCache(folder, "moments", part_key(vae, size=512))
        batch = moments.fetch([content_key(image) for image in images], lambda missing: encode(missing))

    Args:
        folder: of all caches; entries lie in `{kind}-{model_key}/` below it.
        kind: what the entries are.
        model_key: of the part, by `part_key`.
    """

    def __init__(self, folder: str | Path, kind: str, model_key: str):
        self.folder = Path(folder) / f"{kind}-{model_key}"
        others = [other.name for other in sorted(Path(folder).glob(f"{kind}-*")) if other != self.folder]
        if others and not self.folder.exists():
            logger.warning(
                "%s holds %s of another model or size (%s); they are not used, and are computed anew. "
                "Delete them if that model is gone.",
                folder,
                kind,
                ", ".join(others),
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, Path] = {}
        self._seen: set[str] = set()
        self._look()

    def __len__(self) -> int:
        return len(self._files)

    def fetch(self, keys: Sequence[str], compute: Callable[[list[int]], torch.Tensor]) -> torch.Tensor:
        """One entry a key: `(keys, …)` on the CPU.

        Args:
            keys: by `content_key`; the same key may come twice.
            compute: takes the places in `keys` of what is not there, each key's first, and gives their entries
                `(missing, …)`. It is called once, or not at all.

        Raises:
            ValueError: if it gives another number of entries.
            OSError: if they cannot be written, as on a full disk.
        """
        if any(key not in self._files for key in keys):
            self._look()
        found = {key: entry for key in dict.fromkeys(keys) if (entry := self._read(key)) is not None}
        missing = [place for place, key in enumerate(keys) if key not in found and key not in keys[:place]]
        if missing:
            entries = compute(missing)
            if len(entries) != len(missing):
                raise ValueError(f"{len(missing)} features were to be computed, got {len(entries)}")
            new = {keys[place]: entry for place, entry in zip(missing, entries.detach().cpu(), strict=True)}
            self._write(new)
            found |= new
        return torch.stack([found[key] for key in keys])

    def _look(self) -> None:
        """Learn which files have come, of this process or another."""
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name in self._seen:
                continue
            self._seen.add(path.name)
            try:
                with safe_open(path, framework="pt") as file:
                    self._files |= dict.fromkeys(file.keys(), path)
            except Exception as error:  # safetensors raises several kinds
                logger.warning("%s cannot be read (%s); what it held is computed anew", path, error)

    def _read(self, key: str) -> torch.Tensor | None:
        if key not in self._files:
            return None
        try:
            with safe_open(self._files[key], framework="pt") as file:
                entry = file.get_tensor(key)
                if (file.metadata() or {}).get(key) != content_key(entry):
                    raise ValueError("it holds something else than was written")
                return entry
        except Exception as error:  # safetensors raises several kinds
            logger.warning("%s cannot be read any more (%s); what it held is computed anew", self._files[key], error)
            del self._files[key]
            return None

    def _write(self, entries: dict[str, torch.Tensor]) -> None:
        # Named after what is in it: two processes that compute the same at once write the same file.
        path = self.folder / f"{content_key(' '.join(sorted(entries)))}.safetensors"
        with whole_file(path) as temporary:
            checksums = {key: content_key(entry) for key, entry in entries.items()}
            save_file({key: entry.contiguous() for key, entry in entries.items()}, temporary, checksums)
        self._seen.add(path.name)
        self._files |= dict.fromkeys(entries, path)
