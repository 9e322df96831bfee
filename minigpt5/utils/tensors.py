"""Files of tensors, read one tensor at a time: safetensors, PyTorch pickles of tensors alone, and sharded folders.

Whatever is in a file, it is read or refused with one error that names it: nothing in it runs, and nothing is believed
to be larger than the file.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, list_repo_files, snapshot_download
from safetensors import safe_open
from torch import nn

from minigpt5.utils.json_files import read_json
from minigpt5.utils.reading import first_line

# What transformers and diffusers call the files of a folder.
SINGLES = (
    "model.safetensors",
    "diffusion_pytorch_model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.bin",
)
INDEXES = tuple(f"{name}.index.json" for name in SINGLES)
# Where the tensors of a training checkpoint lie, inside its dictionary.
NESTED = ("state_dict", "model")


class Tensors:
    """The names and shapes of a file's or folder's tensors; a tensor is read when it is asked for.

    Args:
        source: the file or folder.
        shapes: of each tensor, by its name.
        read: gives a tensor by its name.
        absent: shards that the folder's index names but that are not there.
    """

    def __init__(
        self,
        source: Path,
        shapes: Mapping[str, Iterable[int]],
        read: Callable[[str], torch.Tensor],
        absent: Iterable[str] = (),
    ):
        self.source, self._read, self.absent = source, read, sorted(absent)
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._read(name)


def open_tensors(path: Path, variant: str | None = None) -> Tensors:
    """Open a `.safetensors` file, a PyTorch file, or a folder of either with or without an index.

    A training checkpoint's other contents, such as its optimizer's state, are skipped. A folder may lack shards, for a
    download of some is as good as all of them to whom it was made for.

    Args:
        variant: of a folder's files, such as "fp16" in `model.fp16.safetensors`; those without one serve as well.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if a file is broken, holds more than tensors and plain values, or no tensors.
    """
    path = Path(path)
    if path.is_dir():
        return _open_folder(path, variant)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if not path.is_file():
        raise ValueError(f"{path} is neither a file nor a folder")
    return _open_safetensors(path) if path.suffix == ".safetensors" else _open_pickle(path)


def _open_safetensors(path: Path) -> Tensors:
    try:
        file = safe_open(path, framework="pt")
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except Exception as error:
        raise ValueError(f"{path} is no safetensors file, or a broken one ({error})") from error
    return Tensors(path, shapes, file.get_tensor)


def _open_pickle(path: Path) -> Tensors:
    content = _unpickle(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, expected a dictionary of tensors")
    for name in NESTED:
        if isinstance(content.get(name), dict):
            content = content[name]
    tensors = {name: value for name, value in content.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError(f"{path} holds no tensors; its entries are {', '.join(map(str, list(content)[:8])) or 'none'}")
    size = path.stat().st_size
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise ValueError(f"{path}: the name of a tensor is {name!r}, which is no text")
        if tensor.layout is not torch.strided or tensor.is_quantized or tensor.nbytes > size:
            raise ValueError(f"{path}: {name} {list(tensor.shape)} is no plain tensor whose numbers are in the file")
    return Tensors(path, {name: value.shape for name, value in tensors.items()}, tensors.__getitem__)


def _unpickle(path: Path) -> Any:
    try:
        if zipfile.is_zipfile(path):
            _check_archive(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        # Files from before PyTorch 1.6 cannot be mapped.
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise ValueError(
                f"{path} holds more than tensors and plain values, and loading it could run any code; it is refused. "
                "Save its state_dict alone, best as safetensors"
            ) from error
        raise ValueError(f"{path} is no file of tensors, or a broken one ({first_line(error)})") from error


def _check_archive(path: Path) -> None:
    """PyTorch stores its archives uncompressed; what would unpack to more than the file holds is none of them."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError("a compressed archive, which PyTorch does not write")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("an archive that says it holds more than its size")


def _open_folder(folder: Path, variant: str | None) -> Tensors:
    for kind in dict.fromkeys((variant, None)):
        for single, index in zip(SINGLES, INDEXES, strict=True):
            # Where both are there diffusers takes the shards, and transformers the one file.
            for name in (index, single) if single.startswith("diffusion") else (single, index):
                file = _of_variant(name, kind)
                if (folder / file).exists():
                    return _open_shards(folder, file) if name == index else open_tensors(folder / file)
    raise FileNotFoundError(f"{folder} holds none of {', '.join((*INDEXES, *SINGLES))}")


def weight_files(folder: Path, variant: str | None = None) -> dict[Path, tuple[int, int]]:
    """A folder's files of weights and indexes of a variant, with what tells each from one that is written later."""
    of = f"\\.{re.escape(variant)}" if variant else ""
    stems = "|".join({name.partition(".")[0] for name in SINGLES})
    shard = r"-\d{5}-of-\d{5}"
    names = re.compile(
        rf"({stems})({of}({shard})?|{shard}{of})\.(safetensors|bin)|({stems})\.(safetensors|bin)\.index{of}\.json"
    )
    found = [path for path in folder.glob("*") if names.fullmatch(path.name)]
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in found}


def _of_variant(name: str, variant: str | None) -> str:
    stem, dot, ending = name.rpartition(".")
    return f"{stem}.{variant}{dot}{ending}" if variant else name


def _open_shards(folder: Path, index: str) -> Tensors:
    shards = read_index(folder / index)
    there = {shard: open_tensors(folder / shard) for shard in set(shards.values()) if (folder / shard).is_file()}
    for shard, tensors in there.items():
        for name in tensors.shapes:
            if shards.get(name) != shard:
                home = f"but in {shards[name]} by" if name in shards else "and not in"
                raise ValueError(f"{folder}: {name} is in {shard}, {home} {index}")
    homes = {name: there[shard] for name, shard in shards.items() if shard in there}
    for name, home in homes.items():
        if name not in home.shapes:
            raise ValueError(f"{folder}: {name} is not in {shards[name]}, where {index} says it is")
    shapes = {name: home.shapes[name] for name, home in homes.items()}
    return Tensors(folder, shapes, lambda name: homes[name][name], set(shards.values()) - set(there))


def read_index(path: Path) -> dict[str, str]:
    """Which shard each tensor lies in, of an index as transformers and diffusers write it.

    Raises:
        ValueError: if the file is none, or names a shard outside its own folder.
    """
    shards = read_json(path).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ValueError(f"{path} is no index of shards: it has no weight_map")
    for name, shard in shards.items():
        if not isinstance(shard, str) or Path(shard).name != shard or "\\" in shard or "\0" in shard:
            raise ValueError(f"{path}: {name} is said to be in {shard!r}, which is no file of this folder")
    return shards


def fetch(path_or_id: str | Path, revision: str | None = None, wanted: Callable[[str], bool] | None = None) -> Path:
    """The local file or folder, or else the download of that hub repository.

    Args:
        wanted: which tensors are; of a sharded repository only the shards that hold one are downloaded.

    Raises:
        FileNotFoundError: for a path that is not there and cannot be a repository's id.
        ValueError: for an index that is none.
    """
    if Path(path_or_id).exists():
        return Path(path_or_id)
    name = str(path_or_id)
    if name.count("/") != 1 or name.startswith((".", "/")) or Path(name).suffix in (".pth", ".ckpt", ".safetensors"):
        raise FileNotFoundError(f"no such file or folder: {name}")
    there = list_repo_files(name, revision=revision)
    index = next((index for index in INDEXES if index in there), None)
    if index:
        shards = read_index(Path(hf_hub_download(name, index, revision=revision)))
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
