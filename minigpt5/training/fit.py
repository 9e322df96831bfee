"""One training loop for every stage: resumable to the bit, on one device or many, watched by figures and pictures.

A stage gives a module, a function from an index to its batch, and a function from a batch to named losses. Batches
depend on their index alone and every step has its own seed, so a run that was stopped goes on as if it had not been.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, cast

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers
from accelerate.utils import send_to_device
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import nn
from torch.backends.cuda import allow_fp16_bf16_reduction_math_sdp, fp16_bf16_reduction_math_sdp_allowed
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, Dataset, get_worker_info
from tqdm import tqdm

from minigpt5.training.checkpoints import (
    find_checkpoint,
    load_training_state,
    read_checkpoint,
    save_checkpoint,
    set_aside,
    training_state,
)
from minigpt5.training.cost import cost_table, training_cost
from minigpt5.training.resuming import ROWS, check_resumable, frozen_samples
from minigpt5.utils.files import write_picture
from minigpt5.utils.integrity import check_finite
from minigpt5.utils.processes import process_state
from minigpt5.utils.programs import ProgramError, one_line
from minigpt5.utils.settings import Settings, plain, setting


def best_of(*figures: str | None) -> Any:
    """The setting `best` of a program whose evaluations have these figures.

    Args:
        figures: the first is the default; `None` stands for the first that an evaluation has.
    """
    told = "figure of an evaluation that tells the best checkpoint, the higher the better"
    choices = [figure for figure in figures if figure is not None]
    return setting(figures[0], choices=choices, help=told + "; null for its first" * (None in figures), rejudge=True)


@dataclass(kw_only=True)
class FitConfig(Settings):
    """The training loop."""

    steps: int = setting(least=1, help="optimizer steps")
    batch_size: int = setting(least=1, fixed=ROWS, help="samples of one forward pass over all processes")
    gradient_accumulation_steps: int = setting(1, least=1, help="forward passes a step; their gradients are averaged")
    learning_rate: float = setting(above=0, help="peak rate of AdamW, reached after the warm-up")
    lr_scheduler: str = setting(
        "cosine",
        choices=("cosine", "linear", "constant", "constant_with_warmup"),
        help="what follows the warm-up, by diffusers' names",
    )
    warmup_steps: int = setting(100, least=0, help="of a rate that rises from zero")
    weight_decay: float = setting(0.01, least=0, help="of AdamW")
    max_grad_norm: float = setting(1.0, above=0, help="gradients are clipped to this norm")
    ema_decay: float | None = setting(
        None, above=0, below=1, help="decay of the weights' moving average, which then is the result; null for none"
    )
    mixed_precision: str = setting("no", choices=("no", "bf16", "fp16"), help="of the forward pass")
    plain_attention: bool = setting(
        False, help="on a CPU, attention by plain products of matrices: faster in bf16 where sequences are short"
    )
    seed: int = setting(0, least=0, most=2**32 - 1, fixed=ROWS, help="of everything drawn")
    num_workers: int = setting(
        0, least=0, most=1024, help="processes that prepare batches ahead; 0 prepares them in this one"
    )
    save_every: int = setting(500, least=1, help="steps between checkpoints")
    keep_checkpoints: int = setting(2, least=1, help="how many of the last ones are kept, beside the best")
    resume: str = setting("latest", passing=True, help="latest, best, none, or a checkpoint's file")
    evaluate_every: int = setting(1000, least=1, help="steps between evaluations; there is one more at the end")
    best: str | None = best_of(None)
    log_every: int = setting(50, least=1, help="steps between reports")
    report_to: str | None = setting(
        "tensorboard", choices=sorted(LOGGER_TYPE_TO_CLASS), help="a tracker of accelerate; null for none"
    )
    max_bad_steps: int = setting(
        5, least=1, help="skipped steps in a row, for a loss that is no finite number, that stop the run"
    )
    dry_run: bool = setting(False, passing=True, help="only list what trains and what it costs in memory")

    def __post_init__(self):
        super().__post_init__()
        if self.mixed_precision == "fp16" and not torch.cuda.is_available():
            raise ValueError("mixed_precision is 'fp16', which needs a GPU; bf16 works without one")
        processes = process_state().num_processes
        if self.batch_size < processes:
            raise ValueError(f"batch_size is {self.batch_size}, of which {processes} processes cannot have one each")
        if self.report_to and not self.dry_run and self.report_to not in map(str, get_available_trackers()):
            extra = "'minigpt5[train]'" if self.report_to == "tensorboard" else self.report_to
            raise ValueError(f"report_to: {self.report_to} is not installed: pip install {extra}, or set it to null")


class TrainingError(ProgramError):
    """Training cannot go on."""


class Objective(nn.Module):
    """A module and its losses as one forward pass, which is what accelerate wraps."""

    def __init__(self, module: nn.Module, losses: Callable[[Any, int], dict[str, torch.Tensor]]):
        super().__init__()
        self.module, self.losses = module, losses

    def forward(self, batch: Any, step: int) -> dict[str, torch.Tensor]:
        """Named losses of a batch."""
        return self.losses(batch, step)


@torch.no_grad()
def exchange(parameters: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> None:
    """Swap the values of two lists of tensors, in place and seen by whoever watches the parameters' versions."""
    for parameter, other in zip(parameters, others, strict=True):
        value = parameter.clone()
        parameter.copy_(other)
        other.copy_(value)


@contextmanager
def noticed(signal_number: int) -> Iterator[list]:
    """A list that is filled when the process gets this signal, which otherwise does nothing meanwhile."""
    received: list = []
    before = signal.signal(signal_number, lambda number, frame: received.append(number))
    try:
        yield received
    finally:
        signal.signal(signal_number, before)


class Batches(Dataset):
    """This process's batches by their index, each with a seed of its own."""

    def __init__(self, batches: Callable[[int], Any], seed: Callable[[int], int]):
        self.batches, self.seed = batches, seed

    def __getitem__(self, index: int) -> Any:
        torch.manual_seed(self.seed(index))
        if get_worker_info() is None:
            return self.batches(index)
        try:
            return self.batches(index)
        except (ValueError, OSError) as error:
            # Raised in a worker, it would come with the worker's traceback for its message.
            return error


def leave_stopping_to_the_run(worker: int) -> None:
    """Schedulers send SIGTERM to all processes of a run: a worker heeds that of the run alone, which saves first."""
    if not hasattr(signal, "sigwaitinfo"):
        return  # macOS

    def end_with_the_run() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=end_with_the_run, daemon=True).start()


def as_it_is(batch: Any) -> Any:
    """A batch needs no collating."""
    return batch


class Watch:
    """Reports of a run: a bar on a terminal, lines elsewhere, and the trackers of accelerate."""

    def __init__(self, accelerator: Accelerator, config: FitConfig, folder: Path, start: int):
        self.accelerator, self.config, self.folder = accelerator, config, folder
        hidden = not accelerator.is_main_process or not sys.stderr.isatty()
        self.bar = tqdm(total=config.steps, initial=start, desc=folder.name, unit="step", disable=hidden)
        self.restart(start)
        if config.report_to:
            settings = {name: v if isinstance(v, (int, float, str)) else str(v) for name, v in plain(config).items()}
            try:
                accelerator.init_trackers("minigpt5", settings)
            except Exception as error:
                # Each tracker has errors of its own, as for a login that is missing.
                raise TrainingError(f"report_to: {config.report_to} does not start: {one_line(error)}") from error

    def restart(self, done: int) -> None:
        """Measure speed from here."""
        self.since, self.seen = time.monotonic(), done

    def say(self, text: str) -> None:
        """Print a line, once."""
        if self.accelerator.is_main_process:
            tqdm.write(f"{self.folder.name}: {text}")
            sys.stdout.flush()

    def step(self, done: int, told: Sequence[dict[str, torch.Tensor]], rate: float, skipped: int) -> None:
        """Report the means of a step's losses over its passes (of the main process's share), its rate and the speed."""
        self.bar.update()
        if done % self.config.log_every and done != self.config.steps:
            return
        speed = (done - self.seen) / (time.monotonic() - self.since)
        samples = speed * self.config.batch_size * self.config.gradient_accumulation_steps
        left = (self.config.steps - done) / speed / 60
        names = dict.fromkeys(name for parts in told for name in parts)
        values = {name: mean(parts[name].item() for parts in told if name in parts) for name in names}
        shown = " ".join(f"{name} {value:.4f}" for name, value in values.items())
        more = f" skipped {skipped}" if skipped else ""
        self.say(
            f"step {done}/{self.config.steps} {shown} lr {rate:.2e}{more} {speed:.2f} steps/s "
            f"{samples:.1f} samples/s {left:.1f} min left"
        )
        self.accelerator.log(values | {"lr": rate, "samples_per_s": samples, "skipped": skipped}, step=done)
        self.restart(done)

    def figures(self, done: int, figures: dict[str, Any]) -> dict[str, float]:
        """Report an evaluation: numbers are printed and tracked, pictures tracked and kept in `samples/`."""
        numbers = {name: value for name, value in figures.items() if not isinstance(value, Image.Image)}
        self.say(f"judged at step {done}: " + " ".join(f"{name} {value:.3f}" for name, value in numbers.items()))
        self.accelerator.log({f"judged/{name}": value for name, value in numbers.items()}, step=done)
        for name, picture in figures.items():
            if name not in numbers:
                write_picture(self.folder / "samples" / f"{name}-{done:08d}.png", picture)
                for tracker in self.accelerator.trackers:
                    layout = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                    tracker.log_images({name: np.asarray(picture.convert("RGB"))[None]}, step=done, **layout)
        self.restart(done)
        return numbers

    def close(self) -> None:
        """Finish the bar and the trackers."""
        self.bar.close()
        if self.config.report_to:
            self.accelerator.end_training()


def build_accelerator(config: FitConfig, folder: Path) -> Accelerator:
    """Accelerate as the launcher started it."""
    return Accelerator(
        mixed_precision=config.mixed_precision,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        cpu=not torch.cuda.is_available(),
        log_with=config.report_to,
        project_dir=folder,
        # Some batches have no picture to paint, and leave the mapper out.
        kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
    )


@contextmanager
def plain_attention() -> Iterator[None]:
    """Attention of a CPU by plain products of matrices, which in bf16 are of bf16 too.

    There PyTorch's fused kernel is slow, the more so the shorter sequences are (`benchmarks/README.md`); but it keeps
    no weights for the backward pass, of which there are as many as the square of the length. In fp32 it is faster.
    """
    before = fp16_bf16_reduction_math_sdp_allowed()
    allow_fp16_bf16_reduction_math_sdp(True)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        allow_fp16_bf16_reduction_math_sdp(before)


def end_dry_run(module: nn.Module, config: FitConfig) -> None:
    """In a dry run, list what trains and what it costs, and end; before the data are opened, where there are none."""
    if config.dry_run:
        print(cost_table(training_cost(module, config.ema_decay is not None)))
        raise SystemExit(0)


def decisive(figures: dict[str, float], name: str | None) -> float | None:
    """The figure that tells the best checkpoint, by default the first; `None` where there is none that is finite.

    Raises:
        TrainingError: if the evaluation has no figure of that name.
    """
    if name is not None and name not in figures:
        raise TrainingError(f"best is {name}, but an evaluation's figures are {', '.join(figures)}")
    height = next(iter(figures.values()), None) if name is None else figures[name]
    return height if height is not None and math.isfinite(height) else None


def fit(
    module: nn.Module,
    batches: Callable[[int], Any],
    losses: Callable[[Any, int], dict[str, torch.Tensor]],
    config: FitConfig,
    folder: Path,
    evaluate: Callable[[], dict[str, Any]] | None = None,
    parameter_groups: list[dict] | None = None,
    rows: Mapping[str, int] | None = None,
) -> nn.Module:
    """Train `module`'s parameters that require a gradient, from the last checkpoint in `folder` if there is one.

    On SIGTERM the step under way is finished and saved, and the program ends with exit code 0.

    Args:
        batches: this process's share of the batch of an index, a function of the index alone.
        losses: named losses of a batch at a step; their entry "loss" is what is minimised.
        evaluate: called on the main process every `evaluate_every` steps and at the end, with the averaged weights in
            place. Returns numbers, of which `config.best` tells the best checkpoint, and pictures.
        parameter_groups: AdamW groups where rates differ; by default one group of all trainable parameters.
        rows: how many each data set has; a run goes on with no other number.

    Returns:
        `module`, with the averaged weights where `ema_decay` is given.

    Raises:
        TrainingError: if `max_bad_steps` losses in a row are no finite numbers, naming the batch; or if the weights are
            not finite in the end.
        CheckpointError: if a checkpoint cannot be written, is broken, or is of a run that cannot go on with these
            settings.
    """
    end_dry_run(module, config)
    frozen, rows = frozen_samples(module), dict(rows or {})
    counters = {"step": 0, "batches": 0, "skipped": 0, "best": None, "processes": process_state().num_processes}
    resumed, told = find_checkpoint(folder, config.resume), []
    if resumed:
        state = read_checkpoint(resumed)
        told = check_resumable(config, state, frozen, rows)
        if any(change.rejudged for change in told):
            state["counters"]["best"] = None
        counters = state["counters"] | {"processes": counters["processes"]}

    folder.mkdir(parents=True, exist_ok=True)
    accelerator = build_accelerator(config, folder)
    groups = parameter_groups or [
        {"params": [parameter for parameter in module.parameters() if parameter.requires_grad]}
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    rates = [{name: group[name] for name in ("lr", "initial_lr", "weight_decay")} for group in optimizer.param_groups]
    objective, prepared = accelerator.prepare(Objective(module, losses), optimizer)
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if resumed:
        load_training_state(objective, optimizer, state)
        if accelerator.scaler is not None and state["scaler"]:
            accelerator.scaler.load_state_dict(state["scaler"])
        # The checkpoint's rates are those of its settings, and of its step.
        for group, own in zip(optimizer.param_groups, rates, strict=True):
            group.update(own)
    start = counters["step"]
    schedule = get_scheduler(
        config.lr_scheduler,
        optimizer,
        num_warmup_steps=config.warmup_steps,
        num_training_steps=config.steps,
        last_epoch=start - 1,
    )
    ema = EMAModel(trainable, decay=config.ema_decay, use_ema_warmup=True, power=0.75) if config.ema_decay else None
    if resumed and ema and state["ema"]:
        ema.load_state_dict(state["ema"] | {"decay": config.ema_decay})
        ema.to(trainable[0].device)

    watch = Watch(accelerator, config, folder, start)
    if resumed:
        watch.say("; ".join([f"resumed at step {start} of {config.steps}", *map(str, told)]))
    accelerator.wait_for_everyone()
    for path in set_aside(folder, start) if accelerator.is_main_process else ():
        watch.say(f"{path.name} is of a later step of an earlier run, and is set aside")

    def judge() -> dict[str, float]:
        """Figures with the averaged weights in place; no random number of the training is used up."""
        module.eval()
        if ema:
            exchange(trainable, ema.shadow_params)
        with torch.no_grad():
            figures = watch.figures(counters["step"], cast(Callable, evaluate)())
        if ema:
            exchange(trainable, ema.shadow_params)
        module.train()
        return figures

    def save(best: bool = False) -> None:
        state = training_state(objective, optimizer)
        if accelerator.is_main_process:
            state["ema"] = ema.state_dict() if ema else None
            state["scaler"] = accelerator.scaler.state_dict() if accelerator.scaler is not None else None
            state |= {"counters": counters, "settings": plain(config), "frozen": frozen, "rows": rows}
            save_checkpoint(folder, counters["step"], state, config.keep_checkpoints, best)

    def seed(index: int) -> int:
        return config.seed * 1_000_003 + index * accelerator.num_processes + accelerator.process_index

    module.train()
    plainly = config.plain_attention and accelerator.device.type == "cpu"
    passes, bad_in_a_row, first = config.gradient_accumulation_steps, 0, counters["batches"]
    indices = range(first, first + (config.steps - start) * passes)
    loader = DataLoader(
        Batches(batches, seed),
        sampler=indices,
        batch_size=None,
        collate_fn=as_it_is,
        num_workers=config.num_workers,
        worker_init_fn=leave_stopping_to_the_run,
        # What makes batches has them open; other ways to start a process, the usual one since Python 3.14, pickle it.
        multiprocessing_context="fork" if config.num_workers else None,
    )
    with noticed(signal.SIGTERM) as stop:
        try:
            ahead = iter(loader)
        except OSError as error:
            raise TrainingError(
                f"cannot start {config.num_workers} processes that prepare batches (num_workers; with 0 the run "
                f"prepares them itself): {one_line(error)}"
            ) from error
        for step in range(start, config.steps):
            finite, told = True, []
            for _ in range(passes):
                index = counters["batches"]
                batch = next(ahead)
                if isinstance(batch, Exception):
                    raise batch
                batch = send_to_device(batch, accelerator.device)
                counters["batches"] += 1
                torch.manual_seed(seed(index))
                with accelerator.accumulate(objective), plain_attention() if plainly else nullcontext():
                    parts = objective(batch, step)
                    accelerator.backward(parts["loss"])
                    finite = finite and bool(parts["loss"].isfinite())
                told.append({name: part.detach() for name, part in parts.items()})
            norm = accelerator.clip_grad_norm_(trainable, config.max_grad_norm)
            # fp16 loses a step now and then to its loss scale and sees to that itself.
            finite = finite and (accelerator.scaler is not None or bool(torch.as_tensor(norm).isfinite()))
            flags = torch.tensor([not finite, bool(stop)], dtype=torch.float32, device=accelerator.device)
            bad, stopping = (cast(torch.Tensor, accelerator.reduce(flags)) > 0).tolist()
            if bad:
                bad_in_a_row += 1
                counters["skipped"] += 1
                watch.say(f"step {step + 1} skipped: its loss or gradient is not finite")
                if bad_in_a_row == config.max_bad_steps:
                    raise TrainingError(
                        f"{folder.name}: {bad_in_a_row} steps in a row had a loss or gradient that is not finite, the "
                        f"last with batch {index} (seed {config.seed}); a lower learning_rate may help"
                    )
                if accelerator.scaler is not None:
                    # It unscales the gradients of a step once, and has to be told that this one has ended.
                    accelerator.scaler.update()
            else:
                bad_in_a_row = 0
                prepared.step()
                if ema:
                    ema.step(trainable)
            rate = float(schedule.get_last_lr()[0])
            schedule.step()
            prepared.zero_grad(set_to_none=True)
            counters["step"] = done = step + 1
            watch.step(done, told, rate, counters["skipped"])

            best = False
            if evaluate and (done % config.evaluate_every == 0 or done == config.steps):
                height = decisive(judge(), config.best) if accelerator.is_main_process else None
                best = height is not None and (counters["best"] is None or height > counters["best"])
                counters["best"] = height if best else counters["best"]
                told_all = accelerator.reduce(torch.tensor(float(best), device=accelerator.device))
                best = bool(cast(torch.Tensor, told_all) > 0)
            if best or stopping or done % config.save_every == 0 or done == config.steps:
                save(best)
            if stopping and done < config.steps:
                watch.say(f"stopped at step {done}, which is saved")
                watch.close()
                raise SystemExit(0)
    watch.close()
    if ema:
        exchange(trainable, ema.shadow_params)
    names = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    try:
        check_finite(dict(zip(names, trainable, strict=True)), f"{folder.name}: nothing is written")
    except ValueError as error:
        raise TrainingError(str(error)) from error
    return module.eval()
