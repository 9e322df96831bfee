"""Checkpoints of a training run: written whole or not at all, the last few and the best kept.

A checkpoint is one torch file of what trains (parameters, optimizer, schedule, averages, counters), gathered from all
processes, however they share the parameters. Frozen weights are not in it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from minigpt5.utils.files import whole_file
from minigpt5.utils.programs import ProgramError

BEST = "best.pt"


class CheckpointError(ProgramError):
    """A checkpoint could not be written or read."""


def save_atomically(state: Any, path: Path) -> None:
    """Write a torch file under a temporary name, then rename it.

    Raises:
        CheckpointError: if the disk is full or fails; what was there before is left as it was.
    """
    try:
        with whole_file(path) as temporary:
            torch.save(state, temporary)
    except (OSError, RuntimeError) as error:
        kept = list_checkpoints(path.parent)
        whole = f"{kept[-1]} is whole" if kept else "there is none before it"
        raise CheckpointError(f"{path} could not be written ({error}); {whole}. Free some space and resume.") from error


def list_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run, oldest first."""
    return sorted(path for path in folder.glob("checkpoint-*.pt") if re.fullmatch(r"checkpoint-\d{8}\.pt", path.name))


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int, best: bool = False) -> None:
    """Write the checkpoint of a step and take away all but the last `keep`; `best` also keeps it as `best.pt`."""
    path = folder / f"checkpoint-{step:08d}.pt"
    save_atomically(state, path)
    if best:
        linked = folder / f"{BEST}.tmp"
        linked.unlink(missing_ok=True)
        os.link(path, linked)
        linked.replace(folder / BEST)
    for old in list_checkpoints(folder)[:-keep]:
        old.unlink()


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
    if not path.exists():
        raise CheckpointError(f"there is no checkpoint {path} to resume from")
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU.

    Raises:
        CheckpointError: if it is no checkpoint.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise CheckpointError(f"{path} is not a checkpoint of this library ({error})") from error


_WHOLE = {"full_state_dict": True, "ignore_frozen_params": True}


def training_state(module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Trainable parameters and optimizer state by name, gathered to the first process's memory."""
    parameters, state = get_state_dict(module, optimizer, options=StateDictOptions(cpu_offload=True, **_WHOLE))
    trainable = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    trainable |= {name.removeprefix("module.") for name in trainable}
    return {"parameters": {n: v for n, v in parameters.items() if n in trainable}, "optimizer": state}


def load_training_state(module: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Put back what `training_state` took.

    Raises:
        CheckpointError: if the checkpoint is of other parameters; names one of them.
    """
    wanted = {name.removeprefix("module.") for name, p in module.named_parameters() if p.requires_grad}
    there = {name.removeprefix("module.") for name in state["parameters"]}
    if wanted != there:
        name = sorted(wanted ^ there)[0]
        raise CheckpointError(
            f"the checkpoint {'lacks' if name in wanted else 'has besides'} {name}: it is of other settings"
        )
    options = StateDictOptions(strict=False, **_WHOLE)
    set_state_dict(
        module, optimizer, model_state_dict=state["parameters"], optim_state_dict=state["optimizer"], options=options
    )
