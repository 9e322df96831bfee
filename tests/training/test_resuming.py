"""What may change when a run goes on, on one linear layer; and runs with adapters that are killed and go on."""

import json
import random
from dataclasses import dataclass

import pytest
import torch
from forking import run_forked
from torch import nn

from minigpt5.training.checkpoints import CheckpointError
from minigpt5.training.fit import FitConfig, TrainingError, best_of, fit
from minigpt5.training.resuming import check_resumable
from minigpt5.utils.settings import Settings, setting


@dataclass
class Adapter(Settings):
    rank: int = setting(2, fixed="what trains depends on it")
    dropout: float = setting(0.0)


@dataclass(kw_only=True)
class Config(FitConfig):
    adapter: Adapter | None = setting(None, fixed="what trains depends on it")
    weight: float = setting(1.0, rejudge=True)
    best: str | None = best_of(None, "height", "width")


SETTINGS = {"batch_size": 4, "learning_rate": 0.1, "warmup_steps": 0, "save_every": 2, "report_to": None}


def run(folder, steps=4, base=0.0, rows=None, evaluate=None, **settings):
    """A small regression with a frozen part; gives the module and the batches that it saw."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
    module[0].requires_grad_(False)
    module[0].weight += base
    seen = []

    def losses(batch, step):
        index, points = batch
        seen.append(index)
        return {"loss": (module(points) - points.sum(1, keepdim=True)).square().mean()}

    config = Config(**SETTINGS | {"steps": steps, "lr_scheduler": "constant"} | settings)
    fit(module, lambda index: (index, torch.randn(4, 3)), losses, config, folder, evaluate, rows=rows)
    return module, seen


def saved(folder, step):
    return torch.load(folder / f"checkpoint-{step:08d}.pt", weights_only=True)


def rates(folder, step):
    (group,) = saved(folder, step)["optimizer"]["param_groups"]
    return group["lr"], group["weight_decay"]


def test_a_new_rate_is_applied_and_said(tmp_path, capsys):
    run(tmp_path)
    run(tmp_path, steps=6, learning_rate=0.05, weight_decay=0.5)
    assert rates(tmp_path, 6) == (0.05, 0.5)
    told = capsys.readouterr().out
    assert "resumed at step 4 of 6; steps 4 → 6; learning_rate 0.1 → 0.05; weight_decay 0.01 → 0.5" in told


def test_a_new_schedule_is_that_of_a_run_which_always_had_it(tmp_path):
    schedule = {"lr_scheduler": "linear", "warmup_steps": 3}
    run(tmp_path / "a", steps=2)
    run(tmp_path / "a", steps=8, **schedule)
    run(tmp_path / "b", steps=8, **schedule)
    assert rates(tmp_path / "a", 8) == rates(tmp_path / "b", 8)
    run(tmp_path / "c", steps=2)
    run(tmp_path / "c", steps=6, lr_scheduler="linear")
    assert rates(tmp_path / "c", 4)[0] == pytest.approx(0.1 * 2 / 6)


def test_nothing_is_said_where_nothing_changed(tmp_path, capsys):
    run(tmp_path, steps=4)
    capsys.readouterr()
    run(tmp_path, steps=4)
    assert capsys.readouterr().out == f"{tmp_path.name}: resumed at step 4 of 4\n"


def test_more_passes_a_step_take_the_next_batches(tmp_path):
    _, first = run(tmp_path, steps=4)
    _, then = run(tmp_path, steps=6, gradient_accumulation_steps=3)
    _, last = run(tmp_path, steps=8, gradient_accumulation_steps=2)
    assert first + then + last == list(range(4 + 6 + 4))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ({"batch_size": 4}, {"batch_size": 8}, "batch_size is 8 and was 4"),
        ({"seed": 0}, {"seed": 1}, "seed is 1 and was 0"),
        ({"adapter": Adapter(2)}, {"adapter": Adapter(4)}, r"adapter\.rank is 4 and was 2"),
        ({"adapter": Adapter(2)}, {"adapter": None}, "adapter is null and was {'rank': 2, 'dropout': 0.0}"),
        ({"adapter": None}, {"adapter": Adapter(2)}, "adapter is {'rank': 2, 'dropout': 0.0} and was null"),
        ({"steps": 4}, {"steps": 3}, "steps is 3 and 4 are done"),
        ({"rows": {"cc3m": 10, "vist": 3}}, {"rows": {"cc3m": 11}}, "cc3m has 11 rows and had 10"),
        ({"base": 0.0}, {"base": 0.1}, r"the base has another 0\.weight than"),
    ],
)
def test_what_may_not_change_is_one_line_and_touches_nothing(tmp_path, before, after, told):
    run(tmp_path, **before)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match=told) as error:
        run(tmp_path, **before | {"steps": 8} | after)
    assert "\n" not in str(error.value) and "begin anew in another folder" in str(error.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files


def test_what_an_adapter_may_change_is_applied(tmp_path, capsys):
    run(tmp_path, adapter=Adapter(2))
    run(tmp_path, steps=6, adapter=Adapter(2, 0.5))
    assert "adapter.dropout 0.0 → 0.5" in capsys.readouterr().out


def test_an_average_begins_goes_on_otherwise_and_ends(tmp_path):
    run(tmp_path, steps=4)
    assert saved(tmp_path, 4)["ema"] is None
    run(tmp_path, steps=6, ema_decay=0.9)
    averaged = saved(tmp_path, 6)["ema"]
    assert averaged["optimization_step"] == 2 and averaged["decay"] == 0.9
    # The average of what was trained before, not of where training began.
    before, now = saved(tmp_path, 4)["parameters"], saved(tmp_path, 6)["parameters"]
    (name,) = (name for name in now if name.endswith("weight"))
    shadow = next(value for value in averaged["shadow_params"] if value.shape == now[name].shape)
    low, high = torch.minimum(before[name], now[name]), torch.maximum(before[name], now[name])
    assert (shadow >= low - 0.1).all() and (shadow <= high + 0.1).all()
    run(tmp_path, steps=8, ema_decay=0.5)
    assert saved(tmp_path, 8)["ema"]["decay"] == 0.5 and saved(tmp_path, 8)["ema"]["optimization_step"] == 4
    module, _ = run(tmp_path, steps=10)
    assert saved(tmp_path, 10)["ema"] is None
    assert torch.equal(module[1].weight, saved(tmp_path, 10)["parameters"][name])


def test_the_best_is_looked_for_anew_where_figures_cannot_be_compared(tmp_path):
    figures = lambda: {"height": 0.9, "width": 0.2}  # noqa: E731
    run(tmp_path, steps=2, evaluate=figures)
    assert saved(tmp_path, 2)["counters"]["best"] == 0.9
    run(tmp_path, steps=4, evaluate=lambda: {"height": 0.5, "width": 0.2})
    assert saved(tmp_path, 4)["counters"]["best"] == 0.9
    run(tmp_path, steps=6, evaluate=figures, best="width")
    assert saved(tmp_path, 6)["counters"]["best"] == 0.2
    run(tmp_path, steps=8, evaluate=lambda: {"height": 0.5, "width": 0.1}, best="width", weight=2.0)
    assert saved(tmp_path, 8)["counters"]["best"] == 0.1
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert best["counters"]["step"] == 8


def test_figures_of_another_number_of_processes_cannot_be_compared(tmp_path):
    run(tmp_path, steps=2)
    state = saved(tmp_path, 2)
    state["counters"]["processes"] = 4
    (change,) = check_resumable(Config(**state["settings"]), state, state["frozen"], state["rows"])
    assert str(change) == "processes 4 → 1" and change.rejudged


def test_a_figure_that_is_no_number_is_never_the_best(tmp_path):
    heights = iter([float("nan"), 0.3, float("inf")])
    evaluate = lambda: {"height": next(heights)}  # noqa: E731
    run(tmp_path, steps=6, evaluate=evaluate, evaluate_every=2)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["counters"] | {"best": 0.3, "step": 4}
    assert saved(tmp_path, 6)["counters"]["best"] == 0.3


def test_a_figure_that_no_evaluation_has_is_named(tmp_path):
    with pytest.raises(TrainingError, match="best is width, but an evaluation's figures are height"):
        run(tmp_path, evaluate=lambda: {"height": 1.0}, best="width")


def test_a_run_that_begins_anew_leaves_what_was_there(tmp_path):
    run(tmp_path, steps=8)
    old = (tmp_path / "checkpoint-00000008.pt").read_bytes()
    _, seen = run(tmp_path, steps=4, resume="none")
    assert seen == [0, 1, 2, 3]
    assert (tmp_path / "checkpoint-00000008.pt.old").read_bytes() == old
    assert sorted(path.name for path in tmp_path.glob("*.pt")) == ["checkpoint-00000002.pt", "checkpoint-00000004.pt"]


def test_a_flipped_byte_is_one_line_with_what_to_do(tmp_path):
    run(tmp_path, steps=4)
    whole = saved(tmp_path, 4)
    path = tmp_path / "checkpoint-00000004.pt"
    content = bytearray(path.read_bytes())
    place = content.index(whole["parameters"]["module.1.weight"].numpy().tobytes())
    content[place + 3] ^= 0x7F
    path.write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"00004\.pt is broken.*checksum.*00002\.pt is whole: move .* away"
    ) as error:
        run(tmp_path, steps=6)
    assert "\n" not in str(error.value)
    path.rename(tmp_path / "away")
    _, seen = run(tmp_path, steps=4)
    assert seen == [2, 3]
    assert torch.equal(saved(tmp_path, 4)["parameters"]["module.1.weight"], whole["parameters"]["module.1.weight"])


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_no_result(tmp_path, number):
    module = nn.Linear(2, 1)

    def losses(batch, step):
        loss = module(torch.ones(1, 2)).square().mean()
        module.weight.data[0, 1] = number if step == 2 else 0.5
        return {"loss": loss + module.bias.sum()}

    settings = SETTINGS | {"save_every": 1}
    told = "step 3 are not saved: numbers that are not finite in .*00002.pt is whole. A lower learning_rate may help"
    with pytest.raises(CheckpointError, match=told):
        fit(module, lambda index: index, losses, Config(steps=3, **settings), tmp_path)
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["checkpoint-00000001.pt", "checkpoint-00000002.pt"]


# One program that forks itself for every run, as in test_fit.py.
KILLED_ADAPTERS = """
import json, os, random, signal, sys
from pathlib import Path
import torch
from minigpt5 import MiniGPT5Pipeline
from minigpt5.data.tasks import caption_task, draw_task
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.language import caption
from minigpt5.storyworld.scene import sample_scene
from minigpt5.training.fit import FitConfig, fit
from minigpt5.training.objective import LossWeights, VokenModel
from minigpt5.vokens.adapter_folder import save_adapter
from minigpt5.vokens.adapters import LoraSettings, train_adapter

torch.set_num_threads(1)
KINDS = {"lora": {"lora": LoraSettings(rank=2, dropout=0.3)}, "prefix": {"prefix_length": 3}}
pipe = MiniGPT5Pipeline.from_pretrained(sys.argv[2])

def run(kind, folder, kill_at=None):
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    sys.stdout = open(os.devnull, "w")
    train_adapter(pipe, **KINDS[kind], seed=5)
    model = VokenModel(pipe, LossWeights(text=1.0, diffusion=0.0, caption=0.0))

    def batches(index):
        if index == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        rng = random.Random(index)
        scene = sample_scene(rng)
        chats = [task(caption(scene, rng), draw(scene), rng) for task in (caption_task, draw_task)]
        return model.prepare(pipe.processor.training_batch(chats))

    config = FitConfig(steps=7, batch_size=2, learning_rate=0.01, warmup_steps=2, save_every=2, report_to=None, seed=5)
    fit(model, batches, lambda batch, step: model(batch), config, Path(folder))
    save_adapter(pipe, Path(folder, "adapter"), "base")
    os._exit(0)

root = Path(sys.argv[1])
told = {}
for kind in KINDS:
    codes = [run(kind, root / kind / "whole")]
    steps = sorted(random.Random(int(sys.argv[3])).sample(range(2, 7), 2))
    codes += [run(kind, root / kind / "cut", step) for step in steps]
    codes += [run(kind, root / kind / "cut"), run(kind, root / kind / "again")]
    files = {name: {str(path.relative_to(root / kind / name)): path.read_bytes()
                    for path in sorted((root / kind / name / "adapter").rglob("*.safetensors"))}
             for name in ("whole", "cut", "again")}
    told[kind] = {"codes": codes, "files": len(files["whole"]), "cut": files["whole"] == files["cut"],
                  "again": files["whole"] == files["again"]}
print(json.dumps(told))
"""


def test_killed_runs_with_lora_and_prefix_end_with_the_bits_of_one_that_was_not(tmp_path, tiny_folder):
    program = tmp_path / "program.py"
    program.write_text(KILLED_ADAPTERS)
    (output,) = run_forked(program, tmp_path, tiny_folder, random.randrange(10**6))
    assert output.returncode == 0, output.stderr
    for kind, told in json.loads(output.stdout.splitlines()[-1]).items():
        assert told["codes"] == [0, -9, -9, 0, 0], kind
        assert told["cut"] and told["again"] and told["files"] >= 3, kind
