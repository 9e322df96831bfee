"""Weights and libraries that metrics need: found where they lie, asked for where they are missing, never downloaded."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any


class MissingWeights(FileNotFoundError):
    """Weights that are not on this machine; the message says which, where they come from and where to put them."""


def require(module: str) -> ModuleType:
    """Import a module of the extra `eval`.

    Raises:
        ModuleNotFoundError: if it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"this metric needs {error.name}, which is not installed: pip install 'minigpt5[eval]'", name=error.name
        ) from error


def find_file(what: str, path: str | Path | None, cached: Path, source: str) -> Path:
    """A file of weights: `path` where given, else the one in the cache.

    Raises:
        MissingWeights: if there is no such file.
    """
    file = Path(path) if path else cached
    if not file.is_file():
        raise MissingWeights(f"{what}: there is no file {file}. Get it from {source} and put it there or name its path")
    return file


def from_hub(what: str, load: Callable[..., Any], name: str | Path) -> Any:
    """Load a model of the Hugging Face hub from a folder or from the hub's local cache.

    Args:
        load: such as `CLIPModel.from_pretrained`.
        name: a folder, or the name of a repository that is in the cache.

    Raises:
        MissingWeights: if it is in neither.
    """
    if not Path(name).is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError

        try:
            name = snapshot_download(str(name), local_files_only=True)
        except (HFValidationError, OSError) as error:
            raise MissingWeights(
                f"{what}: {name} is neither a folder nor in the cache of the Hugging Face hub. Run "
                f"`hf download {name}` where there is a network, or name a folder that holds it"
            ) from error
    return load(str(name))
