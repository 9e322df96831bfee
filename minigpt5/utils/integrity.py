"""Whether a model's folder is whole: every tensor in its files, nothing else there, and every number finite.

The libraries draw at random what a file lacks, pass over what it holds besides, and warn at best.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import HFValidationError
from torch import nn

from minigpt5.utils.json_files import read_json
from minigpt5.utils.reading import first_line
from minigpt5.utils.tensors import Tensors, open_tensors

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# The libraries that parts come from. No module is imported because a folder names it.
LIBRARIES = ("diffusers", "transformers", "minigpt5")
# What counts layers, of which each has tensors; other names with the word in them tell some layers from others.
_LAYERS = re.compile(r"(num|n)_(\w+_)?(layers?|blocks?)|(\w+_)?layers_per_block|(en|de)coder_layers|depth")
# No count of a configuration is larger than its weights, but these may be.
_UNBOUNDED = ("position", "theta", "model_max_length")
_LEAST_BOUND = 2**24
# What is no fault of a folder's.
PASSING = (ImportError, MemoryError, torch.OutOfMemoryError)
# Loaders that tell what they found amiss, in place of drawing at random without a word.
_TELLING = {"output_loading_info": True, "ignore_mismatched_sizes": True}


def few(names: Iterable[str]) -> str:
    """The first three, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def non_finite(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    """The names of those that hold a NaN or an infinity; quantized ones and those without memory are passed over."""
    plain = {
        name: tensor.detach()
        for name, tensor in tensors.items()
        if type(tensor) in (torch.Tensor, nn.Parameter) and tensor.is_floating_point() and tensor.dtype.itemsize > 1
    }
    # The extremes are NaN where any number is, and need no memory of the tensor's size.
    return [
        name
        for name, tensor in plain.items()
        if not tensor.is_meta and tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all()
    ]


def check_finite(tensors: Mapping[str, torch.Tensor], what: str) -> None:
    """Refuse numbers that are not finite.

    Args:
        what: the error's beginning, such as "FILE is broken".

    Raises:
        ValueError: naming the tensors that hold such.
    """
    names = non_finite(tensors)
    if names:
        raise ValueError(f"{what}: numbers that are not finite in {few(names)}")


def _part_class(entry: list) -> type | None:
    """The class that an entry of `model_index.json` names, `None` for a part that is left out.

    Raises:
        ValueError: if it is no class of diffusers, transformers or minigpt5.
    """
    if len(entry) != 2:
        raise ValueError(f"a part is told as [library, class], got {entry!r}")
    library, name = entry
    if library is None and name is None:
        return None
    kind = getattr(importlib.import_module(library), str(name), None) if library in LIBRARIES else None
    if not isinstance(kind, type):
        raise ValueError(f"{library}.{name} is no class of {', '.join(LIBRARIES)}, so it is not loaded")
    return kind


def _open_part(kind: type, folder: Path, variant: str | None) -> Tensors | None:
    """The tensors of a part, `None` if it has none; its configurations are looked through before they build anything.

    Raises:
        FileNotFoundError: if the tensors are missing.
        ValueError: if a file is broken, a shard missing, or a count of a configuration beyond all measure.
    """
    configs = {file: read_json(file) for file in sorted(folder.glob("*config.json"))}
    tensors = open_tensors(folder, variant) if issubclass(kind, nn.Module) else None
    if tensors is not None and tensors.absent:
        raise ValueError(f"{folder} lacks {few(tensors.absent)}, which its index names")
    for file, config in configs.items():
        check_counts(file, config, tensors)
    return tensors


def check_counts(file: Path, config: dict[str, Any], tensors: Tensors | None = None) -> None:
    """Look through a configuration before anything is built by it, which could take for ever or all the memory.

    Raises:
        ValueError: for a number that is larger than the weights, or for more layers than they have tensors.
    """
    most, layers = _LEAST_BOUND, _LEAST_BOUND
    if tensors is not None:
        layers = len(tensors.shapes)
        most = max(most, sum(torch.Size(shape).numel() for shape in tensors.shapes.values()))
    for name, count in _counts(config):
        if count > (layers if _LAYERS.fullmatch(name) else most) and not any(word in name for word in _UNBOUNDED):
            raise ValueError(f"{file}: {name} is {count}, which is beyond all measure")


def _counts(config: dict[str, Any]) -> Iterable[tuple[str, int]]:
    """All whole numbers of a configuration, with the names that they stand under."""
    left: list[tuple[str, Any]] = [("", config)]
    while left:
        name, value = left.pop()
        if isinstance(value, dict):
            left += value.items()
        elif isinstance(value, list):
            left += [(name, each) for each in value]
        elif isinstance(value, int):
            yield name, value


def read_whole(file: Path, shapes: Mapping[str, Sequence[int]]) -> dict[str, torch.Tensor]:
    """The tensors of a file that holds just these.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is broken, or tensors are missing, surplus, of another shape or not finite.
    """
    tensors = open_tensors(file)
    both = [name for name in shapes if name in tensors.shapes]
    found = {
        "missing_keys": shapes.keys() - tensors.shapes.keys(),
        "unexpected_keys": tensors.shapes.keys() - shapes.keys(),
        "mismatched_keys": [
            (name, tensors.shapes[name], shapes[name]) for name in both if tensors.shapes[name] != tuple(shapes[name])
        ],
    }
    faults = _told(found)
    if not faults:
        try:
            state = {name: tensors[name] for name in shapes}
        except Exception as error:
            raise ValueError(f"{file} cannot be read: {first_line(error)}") from error
        faults = _numbers(state)
        faults += [f"{name} is {value.dtype}" for name, value in state.items() if not value.is_floating_point()]
    if faults:
        raise ValueError(f"{file}: {'; '.join(faults)}")
    return state


def load_whole(kind: Any, folder: str | os.PathLike, surplus: bool = False, **options: Any) -> Any:
    """`kind.from_pretrained` of a model, which refuses what is not whole.

    Args:
        surplus: whether the files may hold tensors that the model has no use for.

    Raises:
        OSError: if a file is missing or cannot be read.
        ValueError: if a file is broken, or tensors are missing, surplus, of another shape or not finite.
    """
    with loading(kind, folder):
        part, found = kind.from_pretrained(folder, **_TELLING, **without_code(options))
    if surplus:
        found["unexpected_keys"] = ()
    faults = [*_told(found), *_numbers(part.state_dict())]
    if faults:
        raise ValueError(f"{folder} is no whole {kind.__name__}: {'; '.join(faults)}")
    return part


@contextmanager
def loading(kind: type, source: str | os.PathLike) -> Iterator[None]:
    """Within it whatever a library raises for broken or missing files becomes one error that names their folder.

    Raises:
        OSError: if a file is missing or cannot be read.
        ValueError: if one is broken.
    """
    try:
        # Of what is no JSON, libraries say that it is not there.
        for file in Path(source).glob("*config.json"):
            read_json(file)
        yield
    except PASSING:
        raise
    except Exception as error:
        raise _own_kind(error)(f"{source} cannot be loaded as a {kind.__name__}: {first_line(error)}") from error


def without_code(options: dict[str, Any]) -> dict[str, Any]:
    """Options of a loader, which may not ask for the code of a repository.

    Raises:
        ValueError: if they do.
    """
    if options.get("trust_remote_code"):
        raise ValueError("trust_remote_code: the code of a folder or repository is never run")
    return options | {"trust_remote_code": False}


def local_folder(kind: type[DiffusionPipeline], path_or_id: str | os.PathLike, **options: Any) -> Path:
    """A pipeline's folder, or the download of that hub repository.

    Args:
        kind: the pipeline's class.
        options: of `from_pretrained`.

    Raises:
        OSError: if there is neither.
    """
    if Path(path_or_id).is_dir():
        return Path(path_or_id)
    try:
        return Path(kind.download(path_or_id, **without_code(options)))
    except HFValidationError:
        raise FileNotFoundError(
            f"{path_or_id} is no folder, and cannot be the name of a hub repository (owner/name)"
        ) from None


def load_whole_pipeline(
    load: Callable[[], DiffusionPipeline],
    folder: Path,
    names: Iterable[str],
    variant: str | None = None,
    state: Callable[[nn.Module], dict[str, torch.Tensor]] = nn.Module.state_dict,
) -> Any:
    """Load a pipeline's folder, and see before and afterwards that its parts are whole.

    Args:
        load: loads it.
        names: of what is loaded from it, of which those that the index tells as [library, class] are parts.
        variant: of the weights' files.
        state: gives the tensors of a part by the names that its files have for them.

    Raises:
        OSError: if files are missing or cannot be read.
        ValueError: for everything that is wrong with the folder, in one.
    """
    index, faults, opened = read_json(folder / "model_index.json"), [], {}
    for name in names:
        if not isinstance(index.get(name), list):
            continue
        try:
            kind = _part_class(index[name])
            tensors = None if kind is None else _open_part(kind, folder / name, variant)
            if tensors is not None:
                opened[name] = (kind, tensors)
        except (OSError, ValueError) as error:
            faults.append(f"{name}: {error}")
    raised: type[Exception] = ValueError
    pipe: Any = None
    cause = None
    if not faults:
        try:
            pipe = load()
        except PASSING:
            raise
        except Exception as error:
            raised, cause = _own_kind(error), error
            faults = [
                f"{name}: {fault}" for name, (kind, _) in opened.items() for fault in _ask(kind, folder / name, variant)
            ]
            faults = faults or [first_line(error)]
        else:
            for name, (kind, tensors) in opened.items():
                own = state(getattr(pipe, name))
                found = [*_compare(kind, folder / name, variant, tensors, own), *_numbers(own)]
                faults += [f"{name}: {fault}" for fault in found]
    if faults:
        raise raised(f"{folder} is no whole pipeline: {'; '.join(faults)}") from cause
    return pipe


def _own_kind(error: Exception) -> type[Exception]:
    # What is neither a folder nor a repository's name is not there.
    return OSError if isinstance(error, (OSError, HFValidationError)) else ValueError


def _numbers(state: Mapping[str, torch.Tensor]) -> list[str]:
    names = non_finite(state)
    return [f"numbers of {few(names)} are not finite"] if names else []


def _compare(
    kind: type, folder: Path, variant: str | None, tensors: Tensors, state: Mapping[str, torch.Tensor]
) -> list[str]:
    """What the files of a part that is loaded lack and hold besides."""
    there = {name: value for name, value in state.items() if name in tensors.shapes}
    # Tied tensors are written once.
    shared = {value.data_ptr() for value in there.values() if not value.is_meta}
    missing = [name for name, value in state.items() if name not in there and value.data_ptr() not in shared]
    surplus = [name for name in tensors.shapes if name not in state]
    if not missing and not surplus:
        return []
    if (folder / "adapter_config.json").exists():
        return _told({"missing_keys": missing, "unexpected_keys": surplus})
    return _ask(kind, folder, variant)


def _ask(kind: Any, folder: Path, variant: str | None) -> list[str]:
    """What the library itself finds amiss with a part's folder, without memory: it knows names of older versions."""
    if "quantization_config" in read_json(folder / "config.json"):
        return []
    if not any(folder.glob(f"*.{variant}*")):
        variant = None
    try:
        _, found = kind.from_pretrained(folder, device_map="meta", variant=variant, trust_remote_code=False, **_TELLING)
    except Exception as error:
        return [first_line(error)]
    return _told(found)


def _told(found: Mapping[str, Any]) -> list[str]:
    """What the loaders of transformers and diffusers tell, as sentences."""
    faults = []
    for key, verb in (("missing_keys", "lacks"), ("unexpected_keys", "holds besides")):
        if found[key]:
            faults.append(f"it {verb} {few(sorted(found[key]))}")
    shapes = [
        f"{name} is {list(there)}, but {list(needed)} is needed"
        for name, there, needed in sorted(found.get("mismatched_keys", ()))
    ]
    return faults + [few(shapes)] * bool(shapes) + list(found.get("error_msgs", ()))
