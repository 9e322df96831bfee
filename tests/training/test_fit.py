"""The training loop, on one linear layer."""

import errno
import json
import os
import random
import re
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from forking import run_forked
from PIL import Image
from torch import nn
from torch.backends.cuda import flash_sdp_enabled, fp16_bf16_reduction_math_sdp_allowed
from torch.nn.functional import scaled_dot_product_attention
from torch.profiler import profile

from minigpt5.training.fit import FitConfig, TrainingError, fit


class Stopped(Exception):
    """The power is cut."""


def train(folder, stop_at=None, steps=9, **settings):
    """A small regression; with `stop_at` it is cut off at that step, once."""
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    config = FitConfig(
        steps=steps,
        batch_size=4,
        learning_rate=0.1,
        warmup_steps=2,
        save_every=3,
        log_every=100,
        report_to=None,
        **settings,
    )
    done = []

    def losses(batch, step):
        if step == stop_at:
            raise Stopped
        done.append(step)
        noise = torch.randn_like(batch)
        return {"loss": (module(batch + noise) - batch.sum(1, keepdim=True)).square().mean()}

    fit(module, lambda step: torch.randn(4, 3, generator=torch.Generator().manual_seed(step)), losses, config, folder)
    return module, done


@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(tmp_path, ema_decay):
    whole, _ = train(tmp_path / "whole", ema_decay=ema_decay)
    with pytest.raises(Stopped):
        train(tmp_path / "cut", stop_at=5, ema_decay=ema_decay)
    resumed, done = train(tmp_path / "cut", ema_decay=ema_decay)
    assert done == list(range(3, 9))
    assert torch.equal(resumed.weight, whole.weight) and torch.equal(resumed.bias, whole.bias)


def test_the_result_is_the_average_where_there_is_one(tmp_path):
    plain, averaged = train(tmp_path / "plain")[0], train(tmp_path / "ema", ema_decay=0.9)[0]
    last = torch.load(tmp_path / "ema/checkpoint-00000009.pt", weights_only=True)["parameters"]["module.weight"]
    assert torch.equal(last, plain.weight) and not torch.equal(averaged.weight, plain.weight)


def test_a_finished_run_trains_no_further(tmp_path):
    first, _ = train(tmp_path, ema_decay=0.9)
    again, done = train(tmp_path, ema_decay=0.9)
    assert done == [] and torch.equal(again.weight, first.weight)


def test_training_learns(tmp_path):
    module, _ = train(tmp_path, steps=150)
    assert module.weight.mean().item() > 0.3


@pytest.mark.parametrize(("plain", "kind"), [(False, "flash"), (True, "math")])
def test_attention_is_plain_products_where_that_is_set(tmp_path, plain, kind):
    seen, before = [], fp16_bf16_reduction_math_sdp_allowed()

    def losses(batch, step):
        states = torch.randn(2, 1, 5, 8, dtype=torch.bfloat16)
        with profile() as profiler:
            scaled_dot_product_attention(states, states, states)
        seen.extend(event.key for event in profiler.key_averages())
        assert fp16_bf16_reduction_math_sdp_allowed() == (plain or before)
        return {"loss": module(batch).square().mean()}

    module = nn.Linear(3, 1)
    config = FitConfig(steps=1, batch_size=2, learning_rate=0.1, plain_attention=plain, report_to=None)
    fit(module, lambda step: torch.randn(2, 3), losses, config, tmp_path)
    assert [each for each in ("flash", "math") if any(each in name for name in seen)] == [kind]
    assert flash_sdp_enabled() and fp16_bf16_reduction_math_sdp_allowed() == before


def test_frozen_parameters_stay(tmp_path):
    module = nn.Linear(3, 1)
    module.bias.requires_grad_(False)
    before = module.bias.clone()
    config = FitConfig(steps=3, batch_size=4, learning_rate=0.1, warmup_steps=0, report_to=None)
    losses = lambda batch, step: {"loss": module(batch).square().mean()}  # noqa: E731
    fit(module, lambda step: torch.ones(4, 3), losses, config, tmp_path)
    assert torch.equal(module.bias, before) and not module.training


def test_evaluation_sees_the_average_and_leaves_no_trace(tmp_path):
    seen = []

    def run(folder, evaluate):
        torch.manual_seed(0)
        module = nn.Linear(3, 1)
        config = FitConfig(
            steps=4, batch_size=4, learning_rate=0.1, warmup_steps=0, ema_decay=0.5, evaluate_every=2, report_to=None
        )

        def look():
            seen.append((module.training, module.weight.clone()))
            return {"weight": module.weight.sum().item()}

        losses = lambda batch, step: {"loss": (module(batch) - 1).square().mean()}  # noqa: E731
        return fit(module, lambda step: torch.randn(4, 3), losses, config, folder, look if evaluate else None)

    watched, unwatched = run(tmp_path / "watched", True), run(tmp_path / "unwatched", False)
    assert torch.equal(watched.weight, unwatched.weight)
    assert len(seen) == 2 and not any(training for training, _ in seen)


def small_fit(folder, losses, batches=lambda index: index, evaluate=None, **settings):
    """Fit one weight of two numbers."""
    torch.manual_seed(0)
    module = nn.Linear(2, 1, bias=False)
    settings = {"steps": 6, "learning_rate": 0.1, "warmup_steps": 0, "report_to": None} | settings
    fit(
        module,
        batches,
        lambda batch, step: losses(module, batch),
        FitConfig(batch_size=1, **settings),
        folder,
        evaluate,
    )
    return module


def fine(module, batch):
    return {"loss": module(torch.ones(1, 2)).square().mean()}


def test_a_loss_that_is_no_number_costs_its_step_alone(tmp_path, capsys):
    seen = []

    def losses(module, batch):
        seen.append(module.weight.detach().clone())
        return {"loss": fine(module, batch)["loss"] * (float("nan") if batch in (2, 3) else 1)}

    module = small_fit(tmp_path, losses)
    assert torch.equal(seen[2], seen[3]) and torch.equal(seen[3], seen[4])
    assert not torch.equal(seen[4], seen[5]) and module.weight.isfinite().all()
    told = capsys.readouterr().out
    assert told.count("is not finite") == 2 and "skipped 2" in told
    state = torch.load(tmp_path / "checkpoint-00000006.pt", weights_only=True)
    assert state["counters"]["skipped"] == 2


@pytest.mark.filterwarnings("ignore:Seems like `optimizer.step")
def test_with_a_loss_scaler_too_a_bad_loss_costs_its_step_alone(tmp_path, monkeypatch):
    def build_accelerator(config, folder):
        accelerator = Accelerator(cpu=True)
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=16.0)
        # As accelerate does in fp16, for which it wants a GPU.
        accelerator.unscale_gradients = lambda: accelerator.scaler.unscale_(accelerator._optimizers[0].optimizer)
        return accelerator

    monkeypatch.setattr("minigpt5.training.fit.build_accelerator", build_accelerator)
    seen = []

    def losses(module, batch):
        seen.append(module.weight.detach().clone())
        return {"loss": fine(module, batch)["loss"] * (float("nan") if batch in (2, 3) else 1)}

    small_fit(tmp_path, losses)
    assert torch.equal(seen[2], seen[3]) and torch.equal(seen[3], seen[4]) and not torch.equal(seen[4], seen[5])
    state = torch.load(tmp_path / "checkpoint-00000006.pt", weights_only=True)
    assert state["counters"]["skipped"] == 2 and state["scaler"]["scale"] == 16.0 / 2 / 2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_bad_losses_in_a_row_stop_the_run_and_name_the_batch(tmp_path, bad):
    with pytest.raises(TrainingError, match=r"3 steps in a row.*batch 4"):
        small_fit(
            tmp_path,
            lambda module, batch: {"loss": fine(module, batch)["loss"] + (bad if batch >= 2 else 0)},
            max_bad_steps=3,
        )


def test_accumulated_passes_equal_one_of_their_mean_and_are_told_as_such(tmp_path, capsys):
    points = torch.arange(24.0).view(12, 2) / 24

    def one(module, batch):
        return {"loss": (module(points[batch]) - 1).square().mean()}

    def two(module, batch):
        return {"loss": (module(points[2 * batch : 2 * batch + 2]) - 1).square().mean()}

    accumulated = small_fit(tmp_path / "two", one, gradient_accumulation_steps=2, log_every=1)
    told = _losses(capsys.readouterr().out)
    together = small_fit(tmp_path / "one", two, log_every=1)
    torch.testing.assert_close(accumulated.weight, together.weight)
    assert told == pytest.approx(_losses(capsys.readouterr().out), abs=2e-4)


def _losses(said):
    return [float(loss) for loss in re.findall(r"loss ([\d.]+)", said)]


def test_the_best_checkpoint_is_that_of_the_highest_first_figure(tmp_path):
    heights = iter([0.1, 0.7, 0.4])
    figures = lambda: {"height": next(heights), "other": 1.0}  # noqa: E731
    small_fit(tmp_path, fine, evaluate=figures, evaluate_every=2, keep_checkpoints=1)
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["best.pt", "checkpoint-00000006.pt"]
    best = torch.load(tmp_path / "best.pt", weights_only=True)["counters"]
    assert best["step"] == 4 and best["best"] == 0.7


def test_pictures_of_an_evaluation_are_kept_and_tracked(tmp_path):
    pytest.importorskip("tensorboard")
    picture = Image.new("RGB", (8, 4), "red")
    small_fit(tmp_path, fine, evaluate=lambda: {"height": 1.0, "painted": picture}, report_to="tensorboard")
    assert Image.open(tmp_path / "samples/painted-00000006.png").getpixel((0, 0)) == (255, 0, 0)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = {path.parent for path in (tmp_path / "minigpt5").glob("events*")}
    events = EventAccumulator(str(folder))
    events.Reload()
    assert {"loss", "lr", "samples_per_s", "judged/height"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"]


def test_a_tracker_that_is_not_installed_is_named_before_anything_runs():
    settings = {"steps": 1, "batch_size": 1, "learning_rate": 0.1, "report_to": "comet_ml"}
    with pytest.raises(ValueError, match="report_to: comet_ml is not installed: pip install comet_ml"):
        FitConfig(**settings)
    assert FitConfig(**settings, dry_run=True).report_to == "comet_ml"


def test_workers_prepare_the_same_batches(tmp_path):
    def losses(module, batch):
        return {"loss": (module(batch) - torch.randn(1)).square().mean()}

    draw = lambda index: torch.randn(1, 2)  # noqa: E731
    alone = small_fit(tmp_path / "alone", losses, draw)
    helped = small_fit(tmp_path / "helped", losses, draw, num_workers=2)
    assert torch.equal(alone.weight, helped.weight)


def test_helpers_that_cannot_be_started_are_told(tmp_path, monkeypatch):
    def no_room():
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(os, "fork", no_room)
    with pytest.raises(TrainingError, match=r"cannot start 2 .* \(num_workers; with 0 .*: \[Errno 12\]"):
        small_fit(tmp_path / "run", fine, num_workers=2)


def test_a_dry_run_lists_the_cost_and_touches_nothing(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        small_fit(tmp_path / "run", fine, dry_run=True)
    assert stop.value.code == 0 and not (tmp_path / "run").exists()
    assert "gradients + optimizer state" in capsys.readouterr().out


# One program that forks itself for every run: the parent never computes, so that its children can.
KILLED_TRAINING = """
import json, os, random, signal, subprocess, sys, time
from pathlib import Path
import torch
from torch import nn
from minigpt5.training.fit import FitConfig, fit

def run(folder, kill_at=None, send=lambda: os.kill(os.getpid(), signal.SIGKILL), workers=0):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.setpgrp()
    sys.stdout = open(os.devnull, "w")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.Linear(4, 1))
    order = open(f"{folder}.order", "a")

    def batches(index):
        return index, torch.randn(4, 3)

    def losses(batch, step):
        index, points = batch
        order.write(f"{index}\\n")
        order.flush()
        if index == kill_at:
            send()
        return {"loss": (module(points) - points.sum(1, keepdim=True)).square().mean()}

    config = FitConfig(steps=40, batch_size=4, learning_rate=0.05, warmup_steps=3, save_every=3,
                       ema_decay=0.9, report_to=None, num_workers=workers)
    fit(module, batches, losses, config, Path(folder))
    os._exit(0)

root = sys.argv[1]
assert run(f"{root}/whole") == 0
codes = [run(f"{root}/cut", step) for step in sorted(random.Random(int(sys.argv[2])).sample(range(3, 40), 5))]
codes.append(run(f"{root}/cut"))
# As a scheduler does it: from outside, and the workers get the signal too, before the step is over.
def ask():
    subprocess.run(["kill", "-TERM", "--", f"-{os.getpgrp()}"], start_new_session=True)
    time.sleep(0.3)

codes.append(run(f"{root}/asked", 17, ask, workers=1))
states = {name: torch.load(f"{root}/{name}/{file}", weights_only=True) for name, file in
          (("whole", "checkpoint-00000040.pt"), ("cut", "checkpoint-00000040.pt"), ("asked", "checkpoint-00000018.pt"))}
run(f"{root}/asked")
states["resumed"] = torch.load(f"{root}/asked/checkpoint-00000040.pt", weights_only=True)

def flat(value):
    if isinstance(value, dict):
        return [leaf for name in sorted(value, key=str) for leaf in flat(value[name])]
    if isinstance(value, (list, tuple)):
        return [leaf for inner in value for leaf in flat(inner)]
    return [value]

def same(a, b):
    pairs = list(zip(flat(a), flat(b), strict=True))
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y for x, y in pairs)

print(json.dumps({"codes": codes, "cut": same(states["whole"], states["cut"]),
    "asked": same(states["whole"], states["resumed"]), "leaves": len(flat(states["whole"])),
    "stopped_at": states["asked"]["counters"]["step"]}))
"""


def test_a_killed_run_resumes_to_the_bit_and_one_asked_to_stop_saves_first(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(KILLED_TRAINING)
    (output,) = run_forked(program, tmp_path, random.randrange(10**6))
    assert output.returncode == 0, output.stderr
    told = json.loads(output.stdout.splitlines()[-1])
    assert told["codes"] == [-9] * 5 + [0, 0]
    assert told["cut"] and told["asked"] and told["leaves"] > 30 and told["stopped_at"] == 18
    whole = [int(line) for line in (tmp_path / "whole.order").read_text().split()]
    cut = [int(line) for line in (tmp_path / "cut.order").read_text().split()]
    assert whole == list(range(40))
    # Each killed run goes back to its last checkpoint and takes the very same batches again.
    starts = [i for i in range(1, len(cut)) if cut[i] != cut[i - 1] + 1]
    assert len(starts) == 5 and all(cut[i] % 3 == 0 for i in starts)


SHARED_TRAINING = """
import sys
from pathlib import Path
import torch
from torch import nn
from minigpt5.training.fit import FitConfig, fit
from minigpt5.utils.processes import is_main_process, shard

torch.manual_seed(int(sys.argv[2]))
module = nn.Linear(3, 1)
module.bias.requires_grad_(False)
draw = lambda step: torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
losses = lambda batch, step: {"loss": (module(batch) - batch.sum(1, keepdim=True)).square().mean()}
config = FitConfig(
    steps=5, batch_size=4, learning_rate=0.1, warmup_steps=0, ema_decay=0.5, save_every=2, report_to=None
)
fit(module, lambda step: shard(draw(step)), losses, config, Path(sys.argv[1]))
if is_main_process():
    print("RESULT", module.weight.flatten().tolist())
"""


def _train_shared(folder: Path, processes: int) -> torch.Tensor:
    program = folder.with_suffix(".py")
    program.write_text(SHARED_TRAINING)
    outputs = run_forked(program, folder, 0, processes=processes)
    assert all(output.returncode == 0 for output in outputs), outputs
    (told,) = [line for output in outputs for line in output.stdout.splitlines() if line.startswith("RESULT")]
    return torch.tensor(json.loads(told.removeprefix("RESULT ")))


def test_two_processes_that_share_each_batch_train_as_one_does(tmp_path):
    torch.testing.assert_close(
        _train_shared(tmp_path / "one", 1), _train_shared(tmp_path / "two", 2), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("before", "after"), [(2, 2), (1, 2), (2, 1)])
def test_a_run_goes_on_in_as_many_processes_as_there_are(tmp_path, before, after):
    whole = _train_shared(tmp_path / "run", before)
    (tmp_path / "run" / "checkpoint-00000005.pt").unlink()
    assert (tmp_path / "run" / "checkpoint-00000004.pt").exists()
    torch.testing.assert_close(_train_shared(tmp_path / "run", after), whole, rtol=1e-5, atol=1e-6)
