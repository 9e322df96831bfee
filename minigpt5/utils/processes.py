"""Which process of how many this one is, and its share of a batch. `accelerate launch` or `torchrun` starts them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import PartialState
from torch import distributed


def process_state() -> PartialState:
    """This process among all; on CPUs where there is no GPU."""
    return PartialState(cpu=not torch.cuda.is_available())


def pick_device() -> torch.device:
    """This process's GPU where there is one, otherwise the CPU."""
    return torch.device(process_state().device or "cpu")


def is_main_process() -> bool:
    """Whether this process is the one that reports and saves."""
    return process_state().is_main_process


def shard(batch: Sequence) -> Sequence:
    """This process's share of a batch."""
    state = process_state()
    return batch[state.process_index :: state.num_processes]


def share_of_batch(count: int) -> float:
    """This process's count over the mean count of all processes.

    A mean loss over `count` samples times this number, averaged over the processes, is the mean over all samples.
    Every process has to call it, also one that has none.
    """
    state = process_state()
    if state.num_processes == 1:
        return 1.0
    counts = torch.tensor(float(count), device=state.device)
    distributed.all_reduce(counts)
    return count * state.num_processes / max(counts.item(), 1.0)
