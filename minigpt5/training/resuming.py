"""What may be different when a run goes on: what may is applied and said, what may not is an error of one line.

A setting says so itself, with entries of its metadata:

    fixed="why"      it may not change while the run goes on
    rejudge=True     figures taken before and after cannot be compared, so the best checkpoint is looked for anew
    passing=True     of the start alone, not of the run
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, NamedTuple, NoReturn

import torch
from torch import nn

from minigpt5.training.checkpoints import CheckpointError
from minigpt5.utils.processes import process_state
from minigpt5.utils.settings import Settings, plain

# Why what the order of rows depends on may not change.
ROWS = "rows would come twice before all have come once"


class Change(NamedTuple):
    """A setting that is another one than it was."""

    name: str
    old: Any
    new: Any
    fixed: str | None = None
    rejudged: bool = False

    def __str__(self) -> str:
        return f"{self.name} {_word(self.old)} → {_word(self.new)}"


def _word(value: Any) -> str:
    return "null" if value is None else str(value)


def changes(settings: Settings, saved: Mapping[str, Any], prefix: str = "") -> Iterator[Change]:
    """The settings that are others than in a checkpoint, which holds them as `plain` gives them."""
    for each in fields(settings):  # type: ignore[arg-type]
        new, old = getattr(settings, each.name), saved.get(each.name)
        if each.name not in saved or each.metadata.get("passing") or plain(new) == old:
            continue
        if is_dataclass(new) and isinstance(old, dict):
            yield from changes(new, old, f"{prefix}{each.name}.")  # type: ignore[arg-type]
        else:
            told = each.metadata.get("fixed"), each.metadata.get("rejudge", False)
            yield Change(f"{prefix}{each.name}", old, plain(new), *told)


def check_resumable(
    settings: Any, state: Mapping[str, Any], frozen: Mapping[str, torch.Tensor], rows: Mapping[str, int]
) -> list[Change]:
    """What has changed since a checkpoint was written, all of which may.

    Args:
        state: of the checkpoint.
        frozen: of `frozen_samples`.
        rows: how many each data set has.

    Raises:
        CheckpointError: if something has changed that may not, or the checkpoint is of a later step than the last; says
            which and why.
    """
    counters, found = state["counters"], list(changes(settings, state["settings"]))
    for change in found:
        if change.fixed:
            _refuse(f"{change.name} is {_word(change.new)} and was {_word(change.old)}", change.fixed, "set it back")
    for name in sorted(rows.keys() & state["rows"].keys()):
        now, then = rows[name], state["rows"][name]
        if now != then:
            _refuse(f"{name} has {now:,} rows and had {then:,}", ROWS, "train on the same")
    _check_frozen(frozen, state["frozen"])
    if counters["step"] > settings.steps:
        _refuse(f"steps is {settings.steps} and {counters['step']} are done", "no step is taken back", "raise it")
    # Evaluations are of the first process's share of each batch.
    processes = Change("processes", counters["processes"], process_state().num_processes, rejudged=True)
    return [*found, processes] if processes.old != processes.new else found


def _refuse(what: str, why: str, advice: str) -> NoReturn:
    raise CheckpointError(f"{what} when this run was saved, but {why}: {advice}, or begin anew in another folder")


def frozen_samples(module: nn.Module) -> dict[str, torch.Tensor]:
    """Eight numbers of each parameter that does not train, which tell one base model from another."""
    samples = {}
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            spaced = parameter.detach().flatten()[:: max(parameter.numel() // 8, 1)][:8]
            samples[name] = spaced.float().cpu()
    return samples


def _check_frozen(here: Mapping[str, torch.Tensor], there: Mapping[str, torch.Tensor]) -> None:
    for name in sorted(here.keys() | there.keys()):
        own, other = here.get(name), there.get(name)
        # Bases in fp32, bf16 and fp16 are one base.
        if (
            own is None
            or other is None
            or own.shape != other.shape
            or not torch.allclose(own, other, rtol=0.02, atol=1e-4)
        ):
            _refuse(f"the base has another {name} than", "what was trained goes with its base", "name that model")
