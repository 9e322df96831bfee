"""The training loop, on one linear layer."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from minigpt5.fit import FitConfig, fit


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


SHARED_TRAINING = """
import sys
from pathlib import Path
import torch
from torch import nn
from minigpt5.fit import FitConfig, fit
from minigpt5.processes import is_main_process, shard

torch.manual_seed(int(sys.argv[2]))
module = nn.Linear(3, 1)
draw = lambda step: torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
losses = lambda batch, step: {"loss": (module(batch) - batch.sum(1, keepdim=True)).square().mean()}
config = FitConfig(steps=5, batch_size=4, learning_rate=0.1, warmup_steps=0, ema_decay=0.5, report_to=None)
fit(module, lambda step: shard(draw(step)), losses, config, Path(sys.argv[1]))
if is_main_process():
    print("RESULT", module.weight.flatten().tolist())
"""


def test_two_processes_that_share_each_batch_train_as_one_does(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(SHARED_TRAINING)
    alone = [sys.executable, program, tmp_path / "one", "0"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    results = []
    for command in (alone, [*launch, program, tmp_path / "two", "0"]):
        output = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert output.returncode == 0, output.stderr
        results += [line for line in output.stdout.splitlines() if line.startswith("RESULT")]
    one, two = (torch.tensor(json.loads(line.removeprefix("RESULT "))) for line in results)
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)
