"""The model that a program asks: named in the same settings everywhere, and opened for this process."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.utils.processes import pick_device
from minigpt5.utils.programs import opening
from minigpt5.utils.settings import Settings, setting
from minigpt5.vokens.adapter_folder import RECORD
from minigpt5.weights import cached_file, check_model, shipped_model


@dataclass(kw_only=True)
class ModelSettings(Settings):
    """The model."""

    model: str = setting("storyworld-mini", help="shipped model, pipeline folder or hub repository")
    adapter: Path | None = setting(None, help="folder of what training made beside that model")

    def __post_init__(self):
        super().__post_init__()
        check_model(self.model)
        if self.adapter is not None and not (self.adapter / RECORD).is_file():
            raise ValueError(f"adapter: {self.adapter} is not the folder of one: it has no {RECORD}")


def open_model(
    model: str | Path, adapter: str | Path | None = None, dtype: torch.dtype = torch.float32
) -> MiniGPT5Pipeline:
    """A pipeline, with its adapter if there is one, on this process's device and without progress bars.

    Raises:
        ProgramError: if one of them cannot be opened; names it.
    """
    with opening(f"the model {model}"):
        pipe = MiniGPT5Pipeline.from_pretrained(str(model), dtype=dtype)
    if adapter is not None:
        with opening(f"the adapter {adapter}"):
            pipe.load_adapter(adapter)
    pipe.set_progress_bar_config(disable=True)
    lay_channels_last(pipe.painter)
    return pipe.to(pick_device())


def lay_channels_last(painter: DiffusionPipeline) -> None:
    """Lay the weights of a painter's 2-D convolutions out so that processors convolve faster; their values stay."""
    for part in painter.components.values():
        for module in part.modules() if isinstance(part, nn.Module) else ():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)


def identity(model: str | Path, adapter: str | Path | None = None) -> dict[str, Any]:
    """What a record tells of a model: `name` and `revision`, and those of its `adapter` or `None`.

    Raises:
        FileNotFoundError: see `revision`.
    """
    of_adapter = None if adapter is None else {"name": str(adapter), "revision": revision(adapter)}
    return {"name": str(model), "revision": revision(model), "adapter": of_adapter}


def revision(name: str | Path, index: str = "model_index.json") -> str:
    """Which model it is exactly: the first digits of a folder's SHA-256, or the commit of a hub repository.

    Args:
        index: a file that every repository of its kind has.

    Raises:
        FileNotFoundError: if it is neither a folder nor in the hub's cache.
    """
    folder = Path(shipped_model(name))
    if folder.is_dir():
        digest = hashlib.sha256()
        for file in sorted(path for path in folder.rglob("*") if path.suffix in (".json", ".safetensors", ".bin")):
            digest.update(str(file.relative_to(folder)).encode())
            with open(file, "rb") as content:
                while block := content.read(1 << 20):
                    digest.update(block)
        return f"sha256:{digest.hexdigest()[:16]}"
    cached = cached_file(name, index)
    if cached is None:
        raise FileNotFoundError(f"{name} is no folder, no shipped model, and not in the cache of the Hugging Face hub")
    return f"commit:{Path(cached).parent.name}"
