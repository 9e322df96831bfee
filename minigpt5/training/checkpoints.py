"""Checkpoints of a training run: written whole or not at all, the last few and the best kept.

A checkpoint is one torch file of what trains (parameters, optimizer, averages, counters), gathered from all processes,
however they share the parameters, and of the settings that it was trained with. Frozen weights are not in it. The
archive that torch writes has a checksum of each of its records; they are verified before anything is read.
"""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from minigpt5.utils.files import whole_file
from minigpt5.utils.integrity import check_finite
from minigpt5.utils.programs import ProgramError
from minigpt5.utils.reading import first_line

BEST = "best.pt"
# What every checkpoint holds.
ENTRIES = {"parameters", "optimizer", "ema", "scaler", "counters", "settings", "frozen", "rows"}


class CheckpointError(ProgramError):
    """A checkpoint could not be written or read."""


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*.pt") if re.fullmatch(r"checkpoint-\d{8}\.pt", path.name))


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int, best: bool = False) -> None:
    """Write the checkpoint of a step and take away all but the last `keep`; `best` also keeps it as `best.pt`.

    What a killed run left half-written goes too.

    Raises:
        CheckpointError: if a number in it is not finite, or the disk is full or fails; what was there before is left as
            it was.
    """
    path = folder / f"checkpoint-{step:08d}.pt"
    try:
        check_finite(dict(_tensors(state)), f"the weights of step {step} are not saved")
        # A run that is killed between the two does the step again, and finds it the best again.
        first = folder / BEST if best else path
        with whole_file(first) as temporary:
            torch.save(state, temporary)
        if best:
            with whole_file(path) as temporary:
                _link(first, temporary)
    except ValueError as error:
        raise CheckpointError(f"{error}; {_last_whole(folder)}. A lower learning_rate may help.") from error
    except OSError as error:
        told = f"{path} could not be written ({error}); {_last_whole(folder, path)}. Free some space and resume."
        raise CheckpointError(told) from error
    for old in (*list_checkpoints(folder)[:-keep], *folder.glob(".*.pt.*.tmp")):
        old.unlink()


def _link(path: Path, other: Path) -> None:
    try:
        os.link(path, other)
    except OSError:
        # Some file systems have no links.
        shutil.copyfile(path, other)


def find_checkpoint(folder: Path, resume: str) -> Path | None:
    """The checkpoint that `resume` means: "latest", "best", "none" or a file.

    Raises:
        CheckpointError: if "best" or the file is not there.
    """
    if resume == "none":
        return None
    if resume == "latest":
        return next(reversed(list_checkpoints(folder)), None)
    path = folder / BEST if resume == "best" else Path(resume)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint {path} to resume from")
    return path


def set_aside(folder: Path, step: int) -> list[Path]:
    """Rename the checkpoints of later steps, which a run that goes back to `step` gives up; gives their new names."""
    later = [path for path in list_checkpoints(folder) if int(path.stem.partition("-")[2]) > step]
    # A best one without later ones beside it is of a run that was killed in `save_checkpoint`, which goes on.
    if (folder / BEST).exists() and (step == 0 or (later and _step_of(folder / BEST) > step)):
        later.append(folder / BEST)
    return [path.replace(path.with_name(f"{path.name}.old")) for path in later]


def _step_of(path: Path) -> int:
    """The step of a checkpoint; 0 of a broken one, which is told when it is resumed from."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)["counters"]["step"]
    except Exception:
        return 0


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU.

    Raises:
        CheckpointError: if it is broken or no checkpoint; names one before it that is whole.
    """
    try:
        return _read(path)
    except Exception as error:
        whole = _last_whole(path.parent, path)
        told = f"{path} is broken, or no checkpoint of this version ({first_line(error)}); {whole}"
        advice = f": move {path.name} away and run again" if "is whole" in whole else ": begin anew with --resume none"
        raise CheckpointError(told + advice) from error


def _read(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken:
        raise ValueError(f"the checksum of its record {broken} does not match")
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict) or not state.keys() >= ENTRIES:
        raise ValueError(f"it has not the entries {', '.join(sorted(ENTRIES))}")
    check_finite(dict(_tensors(state)), "it holds")
    return state


def _last_whole(folder: Path, but: Path | None = None) -> str:
    """Which of a run's checkpoints can be resumed from, in words."""
    for path in reversed(list_checkpoints(folder)):
        if path != but:
            try:
                _read(path)
            except Exception:
                continue
            return f"{path} is whole"
    return "there is no whole one before it"


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors in nested mappings and lists, by a name each."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, (dict, list, tuple)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(inner, f"{name}.{key}".lstrip("."))


_WHOLE: dict[str, Any] = {"full_state_dict": True, "ignore_frozen_params": True}


def training_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Trainable parameters and optimizer state by name, gathered to the first process's memory."""
    parameters, state = get_state_dict(module, optimizer, options=StateDictOptions(cpu_offload=True, **_WHOLE))
    trainable = {_bare(name) for name, parameter in module.named_parameters() if parameter.requires_grad}
    return {"parameters": {n: v for n, v in parameters.items() if _bare(n) in trainable}, "optimizer": state}


def load_training_state(module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put back what `training_state` took.

    Raises:
        CheckpointError: if the checkpoint is of other parameters; names one of them.
    """
    wanted = {_bare(name): p.shape for name, p in module.named_parameters() if p.requires_grad}
    there = {_bare(name): value.shape for name, value in state["parameters"].items()}
    if wanted != there:
        name = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))[0]
        if name in wanted and name in there:
            how = f"has {name} as {list(there[name])} instead of {list(wanted[name])}"
        else:
            how = f"{'lacks' if name in wanted else 'has besides'} {name}"
        raise CheckpointError(f"the checkpoint {how}: it is of other settings")
    options, saved = StateDictOptions(strict=False, **_WHOLE), state["optimizer"]
    # A parameter that has had no gradient has no moments; torch 2.6 wants an entry all the same.
    moments = {name: {} for group in saved["param_groups"] for name in group["params"]} | saved["state"]
    set_state_dict(
        module,
        optimizer,
        model_state_dict=state["parameters"],
        optim_state_dict=saved | {"state": moments},
        options=options,
    )


def _bare(name: str) -> str:
    """A parameter's name without what wraps the model: our losses, and the class that trains in several processes."""
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name
