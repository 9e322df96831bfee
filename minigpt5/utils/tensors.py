"""Files of tensors, read one tensor at a time: safetensors, PyTorch pickles of tensors alone, and sharded folders."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, list_repo_files, snapshot_download
from safetensors import safe_open
from torch import nn

INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLES = ("model.safetensors", "pytorch_model.bin")
# Where the tensors of a training checkpoint lie, inside its dictionary.
NESTED = ("state_dict", "model")


class Tensors:
    """The names and shapes of a file's or folder's tensors; a tensor is read when it is asked for."""

    def __init__(self, source: Path, slices: dict[str, Any], read: Callable[[str], torch.Tensor]):
        self.source, self._read = source, read
        self.shapes = {name: tuple(shape) for name, shape in slices.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._read(name)


def open_tensors(path: Path) -> Tensors:
    """Open a `.safetensors` file, a PyTorch file, or a folder of either with or without an index.

    A training checkpoint's other contents, such as its optimizer's state, are skipped.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a PyTorch file holds more than tensors and plain values, or no tensors.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if path.suffix == ".safetensors":
        file = safe_open(path, framework="pt")
        return Tensors(path, {name: file.get_slice(name).get_shape() for name in file.keys()}, file.get_tensor)  # noqa: SIM118
    content = _unpickle(path)
    for name in NESTED:
        if isinstance(content.get(name), dict):
            content = content[name]
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no tensors; its entries are {', '.join(map(str, list(content)[:8]))}")
    return Tensors(path, {name: value.shape for name, value in tensors.items()}, tensors.__getitem__)


def _unpickle(path: Path) -> dict:
    try:
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            # Files from before PyTorch 1.6 cannot be mapped.
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).split("\n")[0]
        raise ValueError(
            f"{path} holds more than tensors and plain values, and loading it could run any code; it is refused. "
            f"Save its state_dict alone, best as safetensors ({first})"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dictionary of tensors")
    return content


def _open_folder(folder: Path) -> Tensors:
    for index in INDEXES:
        if (folder / index).exists():
            shards = json.loads((folder / index).read_text())["weight_map"]
            break
    else:
        single = next((name for name in SINGLES if (folder / name).exists()), None)
        if single is None:
            raise FileNotFoundError(f"{folder} holds none of {', '.join((*INDEXES, *SINGLES))}")
        return open_tensors(folder / single)
    # A download of some shards is as good as all of them to whom it was made for.
    files = {name: open_tensors(folder / name) for name in set(shards.values()) if (folder / name).exists()}
    homes = {name: files[shard] for name, shard in shards.items() if shard in files}
    return Tensors(folder, {name: home.shapes[name] for name, home in homes.items()}, lambda name: homes[name][name])


def fetch(path_or_id: str | Path, revision: str | None = None, wanted: Callable[[str], bool] | None = None) -> Path:
    """The local file or folder, or else the download of that hub repository.

    Args:
        wanted: which tensors are; of a sharded repository only the shards that hold one are downloaded.

    Raises:
        FileNotFoundError: for a path that is not there and cannot be a repository's id.
    """
    if Path(path_or_id).exists():
        return Path(path_or_id)
    name = str(path_or_id)
    if name.count("/") != 1 or name.startswith((".", "/")) or Path(name).suffix in (".pth", ".ckpt", ".safetensors"):
        raise FileNotFoundError(f"no such file or folder: {name}")
    there = list_repo_files(name, revision=revision)
    index = next((index for index in INDEXES if index in there), None)
    if index:
        shards = json.loads(Path(hf_hub_download(name, index, revision=revision)).read_text())["weight_map"]
        weights = {shard for tensor, shard in shards.items() if wanted is None or wanted(tensor)}
    else:
        weights = {next((single for single in SINGLES if single in there), SINGLES[0])}
    return Path(snapshot_download(name, revision=revision, allow_patterns=["*.json", "tokenizer.model", *weights]))


def replace_parameters(module: nn.Module, value: Callable[[str, nn.Parameter], torch.Tensor]) -> None:
    """Put `value(name, parameter)` in the place of each parameter, one after the other; the old one may be on meta."""
    for name, parameter in list(module.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        new = nn.Parameter(value(name, parameter), requires_grad=parameter.requires_grad)
        setattr(module.get_submodule(owner), leaf, new)
