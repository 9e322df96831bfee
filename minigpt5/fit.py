"""One training loop for every stage: resumable, with warm-up, EMA, progress and a judged figure now and then.

A stage gives a module, a function from a step to its batch, and a function from a batch to named losses. Batches
depend on the step alone, so a run that was stopped goes on as if it had not been. Under `torchrun` several
processes share each batch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import distributed, nn


@dataclass
class FitConfig:
    """Settings of one stage.

    Args:
        steps: optimizer steps.
        batch_size: samples a step.
        learning_rate: peak rate of AdamW, reached after `warmup_steps`, then a cosine to zero.
        ema_decay: decay of the weights' moving average, which then is the result; `None` for none.
        autocast: bf16 autocast, where the accelerator or processor gains from it.
        save_every, evaluate_every, log_every: in steps.
    """

    steps: int
    batch_size: int
    learning_rate: float
    warmup_steps: int = 100
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    ema_decay: float | None = None
    autocast: bool = False
    seed: int = 0
    save_every: int = 500
    evaluate_every: int = 1000
    log_every: int = 50


def process_state() -> PartialState:
    """Which of how many processes this one is; on CPUs they are started by `torchrun`."""
    return PartialState(cpu=not torch.cuda.is_available())


def pick_device() -> torch.device:
    """This process's GPU where there is one, otherwise the CPU."""
    return process_state().device


def is_main_process() -> bool:
    """Whether this process is the one that reports and saves."""
    return process_state().is_main_process


def shard(batch: Sequence) -> Sequence:
    """This process's share of a batch."""
    state = process_state()
    return batch[state.process_index :: state.num_processes]


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Give every process the mean of all processes' gradients, in one exchange."""
    if process_state().num_processes == 1:
        return
    # A parameter that one process's share did not touch still has to take part.
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= process_state().num_processes
    for parameter, mean in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
        parameter.grad = mean.view_as(parameter)


def save_atomically(state: Any, path: Path) -> None:
    """Write a torch file under a temporary name, then rename it: whole or not at all."""
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@torch.no_grad()
def exchange(parameters: list[torch.Tensor], others: list[torch.Tensor]) -> None:
    """Swap the values of two lists of tensors, in place and seen by whoever watches the parameters' versions."""
    for parameter, other in zip(parameters, others, strict=True):
        value = parameter.clone()
        parameter.copy_(other)
        other.copy_(value)


def fit(
    module: nn.Module,
    batches: Callable[[int], Any],
    losses: Callable[[Any, int], dict[str, torch.Tensor]],
    config: FitConfig,
    folder: Path,
    evaluate: Callable[[], dict[str, float]] | None = None,
    parameter_groups: list[dict] | None = None,
) -> nn.Module:
    """Train `module`'s parameters that require a gradient, from the last checkpoint in `folder` if there is one.

    Args:
        batches: this process's share of the batch of a step, a function of the step alone.
        losses: named losses of a batch; their entry "loss" is what is minimised.
        evaluate: figures printed every `evaluate_every` steps and at the end, with the averaged weights in place.
        parameter_groups: AdamW groups where rates differ; by default one group of all trainable parameters.

    Returns:
        `module`, with the averaged weights where `ema_decay` is given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / "checkpoint.pt"
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        parameter_groups or trainable, lr=config.learning_rate, weight_decay=config.weight_decay
    )
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=config.steps)
    ema = EMAModel(trainable, decay=config.ema_decay, use_ema_warmup=True, power=0.75) if config.ema_decay else None

    def evaluate_averaged() -> dict[str, float]:
        module.eval()
        if ema:
            exchange(trainable, ema.shadow_params)
        with torch.no_grad():
            figures = evaluate()
        if ema:
            exchange(trainable, ema.shadow_params)
        module.train()
        return figures

    process = process_state()
    start = 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location="cpu", weights_only=True)
        for parameter, value in zip(trainable, state["parameters"], strict=True):
            parameter.data.copy_(value)
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        if ema:
            ema.load_state_dict(state["ema"])
            ema.to(trainable[0].device)
        start = state["step"]
        print(f"{folder.name}: resumed at step {start} of {config.steps}", flush=True)

    if process.num_processes > 1:
        for parameter in trainable:
            distributed.broadcast(parameter.data, src=0)
    module.train()
    device = trainable[0].device
    since, seen = time.monotonic(), start
    for step in range(start, config.steps):
        torch.manual_seed(config.seed * 1_000_003 + step * process.num_processes + process.process_index)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.autocast):
            parts = losses(batches(step), step)
        parts["loss"].backward()
        average_gradients(trainable)
        torch.nn.utils.clip_grad_norm_(trainable, config.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        if ema:
            ema.step(trainable)

        done = step + 1
        if not process.is_main_process:
            continue
        if done % config.log_every == 0 or done == config.steps:
            rate = (done - seen) / (time.monotonic() - since)
            values = " ".join(f"{name} {value.item():.4f}" for name, value in parts.items())
            left = (config.steps - done) / rate / 60
            print(
                f"{folder.name}: step {done}/{config.steps} {values} {rate:.2f} steps/s {left:.1f} min left",
                flush=True,
            )
            since, seen = time.monotonic(), done
        if done % config.save_every == 0 or done == config.steps:
            state = {
                "parameters": [parameter.data for parameter in trainable],
                "optimizer": optimizer.state_dict(),
                "schedule": schedule.state_dict(),
                "ema": ema.state_dict() if ema else None,
                "step": done,
            }
            save_atomically(state, checkpoint)
        if evaluate and (done % config.evaluate_every == 0 and done < config.steps):
            figures = " ".join(f"{name} {value:.3f}" for name, value in evaluate_averaged().items())
            print(f"{folder.name}: judged at step {done}: {figures}", flush=True)
            since, seen = time.monotonic(), done
    if ema:
        exchange(trainable, ema.shadow_params)
    return module.eval()
