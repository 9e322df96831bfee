import json
import re

import pytest
import torch
import yaml
from test_reader_configs import ROOT

from minigpt5.joining import open_reader
from minigpt5.readers.instructblip import instructblip_of
from minigpt5.storyworld.export import EXPORTS

COMPARE = "training/miniature/compare_readers"
PLAN = ROOT / "configs/storyworld-readers/plan.yaml"
# One step of each stage, two conversations each.
FEW = {"stage1": {"mix": {"caption": 2}}, "stage2": {"mix": {"question": 1, "ground": 1}}}
FEW = {stage: {"steps": 1, "batch_size": 2, "judged": 1} | mix for stage, mix in FEW.items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("asked")
    for name in ("cc3m", "question", "ground"):
        for split in ("train", "validation"):
            EXPORTS[name](root / name, split, 4)
    return root


@pytest.fixture
def compare(world, tmp_path):
    """The program's arguments, and the plan with stages of one step, which a test may change."""
    plan = yaml.safe_load(PLAN.read_text()) | FEW
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    return plan, ("--plan", tmp_path / "plan.yaml", "--data", world, "--out", tmp_path / "out", "--asked", 2)


def test_each_system_and_seed_is_trained_asked_and_a_row(run_program, compare, tmp_path, capsys):
    _, arguments = compare
    run_program(COMPARE, *arguments, "--systems", "minigpt-4", "qwen-vl", "--seeds", 0)
    run_program(COMPARE, *arguments, "--systems", "qwen-vl", "--seeds", 0, 1)
    assert capsys.readouterr().out.count("is there") == 1
    lines = (tmp_path / "out/table.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]
    assert [row[:2] for row in rows] == [["MiniGPT-4", "1"], ["Qwen-VL", "2"], ["without a look", ""]]
    assert all(re.fullmatch(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", cell) for row in rows[:2] for cell in row[2:5])
    # Of MiniGPT-4 a projection from 128 to 192 trains; Qwen-VL's connector and language model have millions.
    assert rows[0][5] == f"{(128 + 1) * 192 / 1e3:.0f} K" and float(rows[1][5].split()[0].replace(",", "")) > 2000
    results = json.loads((tmp_path / "out/qwen-vl-1/results.json").read_text())
    assert {task: len(marks) for task, marks in results["marks"].items()} == dict.fromkeys(
        ("captions", "questions", "boxes"), 2
    )
    assert not list((tmp_path / "out").rglob("*.pt"))


def test_a_run_goes_on_where_it_was_stopped_by_the_same_plan_alone(run_program, refused, compare, tmp_path):
    plan, arguments = compare
    few = (*arguments, "--systems", "minigpt-4", "--seeds", 0)
    run_program(COMPARE, *few)
    folder = tmp_path / "out/minigpt-4-0"
    (folder / "results.json").unlink()
    weights = [path.stat().st_mtime_ns for path in sorted(folder.rglob("*.safetensors"))]
    run_program(COMPARE, *few)
    assert (folder / "results.json").exists() and len(weights) == 3
    assert [path.stat().st_mtime_ns for path in sorted(folder.rglob("*.safetensors"))] == weights
    plan["common"]["learning_rate"] = 0.1
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump(plan))
    assert refused(COMPARE, *few) == (
        f"{folder} was made by another plan, start or number asked; choose another --out\n"
    )


def test_a_plan_that_is_none_is_one_line(refused, compare, tmp_path):
    plan, arguments = compare
    file = tmp_path / "plan.yaml"
    form = f"{file}: a plan has common, stage1, stage2 and systems, and each system has stage1, stage2"

    def told(**changed):
        file.write_text(yaml.safe_dump(plan | changed, sort_keys=False))
        return refused(COMPARE, *arguments)

    assert told(systems={"llava": {"stage1": {}}}) == form + "\n"
    assert told(systems=3) == form + "\n"
    own = plan["systems"]["llava"]
    assert told(systems={"flamingo": own}).startswith(f"{form}, with or without connector_options; not so flamingo. ")
    assert told(common={"learning_rate": -1, "warmup_steps": 0}).startswith(
        f"{file}: minigpt-4, stage1: learning_rate is -1"
    )
    file.write_text(yaml.safe_dump(plan | {"systems": {"llava": own}}))
    assert refused(COMPARE, *arguments, "--systems", "cogvlm") == f"systems: {file} has no cogvlm; it has llava\n"
    assert not (tmp_path / "out").exists()


def test_all_systems_but_sphinx_1k_are_in_the_plan():
    plan = yaml.safe_load(PLAN.read_text())
    stages = {path.parent.name for path in (ROOT / "configs/readers").rglob("*.yaml")}
    assert set(plan["systems"]) == stages | {"minigpt-4"}


@torch.no_grad()
def test_instructblip_of_minigpt_4_has_its_parts(pictures):
    minigpt4, processor = open_reader("storyworld-mini")
    model, made = instructblip_of(minigpt4, processor.image_processor, processor.tokenizer)
    pixels = made.image_processor(pictures[:1], return_tensors="pt")["pixel_values"]
    there = torch.ones(1, 0, dtype=torch.long)
    # Without an instruction its Q-Former sees what MiniGPT-4's does.
    own = model.qformer(
        input_ids=there,
        attention_mask=torch.ones(1, minigpt4.config.num_query_tokens, dtype=torch.long),
        query_embeds=model.query_tokens,
        encoder_hidden_states=model.vision_model(pixels).last_hidden_state,
    ).last_hidden_state
    theirs = minigpt4.qformer(
        query_embeds=minigpt4.query_tokens,
        encoder_hidden_states=minigpt4.vision_model(pixels).last_hidden_state,
    ).last_hidden_state
    assert torch.allclose(own[:, : theirs.shape[1]], theirs, atol=1e-5)
    assert model.config.image_token_index == made.tokenizer.convert_tokens_to_ids("<image>")
