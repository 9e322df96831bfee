"""The programs, as a user would run them, on the shipped miniature."""

import json
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FEW = ("--num-inference-steps", "2", "--judge", "storyworld")


@pytest.fixture
def program(monkeypatch):
    def run(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_path(str(ROOT / "evaluation" / f"{name}.py"), run_name="__main__")

    return run


def results(out):
    return json.loads((out / "results.json").read_text())


def test_captions_are_painted_and_measured_once(data, tmp_path, program):
    first = ("--data", data / "cc3m", "--out", tmp_path, *FEW)
    program("evaluate_alignment", *first, "--count", 1)
    reply = tmp_path / "replies/000000.json"
    made = reply.stat().st_mtime_ns
    program("evaluate_alignment", *first, "--count", 2)
    assert reply.stat().st_mtime_ns == made and (tmp_path / "replies/000001.json").exists()
    (task,) = results(tmp_path)["tasks"].values()
    assert task["items"] == 2 and {"low", "high"} < task["figures"]["frame_accuracy"].keys()
    assert (tmp_path / "results.md").read_text().startswith("# Caption to picture")


def test_stories_are_told_under_every_context(data, tmp_path, program):
    program("evaluate_stories", "--data", data / "vist", "--out", tmp_path, "--count", 1, *FEW)
    tasks = results(tmp_path)["tasks"]
    assert {name: task["items"] for name, task in tasks.items()} == {
        "final, no context": 1,
        "final, text context": 1,
        "final, image context": 1,
        "final, image-text context": 1,
        "every step": 5,
        "next step": 4,
    }
    assert "hero_identity" in tasks["every step"]["figures"]
    assert {"bleu_1", "rouge_l", "s_bert", "text_agrees"} < tasks["next step"]["figures"].keys()


def test_a_baseline_without_words_has_no_figures_of_text(data, tmp_path, program):
    options = ("--baseline", "diffusion", "--tasks", "next step", "--count", 1)
    program("evaluate_stories", "--data", data / "vist", "--out", tmp_path, *options, *FEW)
    (task,) = results(tmp_path)["tasks"].values()
    assert task["pictures"] == 4 and "frame_accuracy" in task["figures"] and "bleu_1" not in task["figures"]


def test_talks_are_answered(data, tmp_path, program):
    program("evaluate_dialogue", "--data", data / "mmdialog", "--out", tmp_path, "--count", 1, *FEW)
    (task,) = results(tmp_path)["tasks"].values()
    assert task["items"] == 4 and {"picture_f1", "bleu_1", "character_bleu_1_as_published"} < task["figures"].keys()


def test_replies_of_other_settings_are_not_mixed(data, tmp_path, program):
    given = ("--data", data / "cc3m", "--out", tmp_path, "--count", 1, *FEW)
    program("evaluate_alignment", *given)
    with pytest.raises(ValueError, match="seed 0, not 1"):
        program("evaluate_alignment", *given, "--seed", 1)


@pytest.mark.parametrize(
    ("name", "layout", "file"),
    [
        ("evaluate_alignment", "cc3m", "cc3m_{}.tsv"),
        ("evaluate_stories", "vist", "{}_cleaned.json"),
        ("evaluate_dialogue", "mmdialog", "{0}/{0}_conversations.txt"),
    ],
)
def test_a_split_is_found_by_its_name_or_told(tmp_path, program, capsys, name, layout, file):
    for split in ("train", "val"):
        path = tmp_path / "data" / file.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    given = ("--data", tmp_path / "data", "--out", tmp_path / "out")
    with pytest.raises((ValueError, OSError, SystemExit), match="val"):
        program(name, *given)
    with pytest.raises(SystemExit) as stop:
        program(name, *given, "--split", "test")
    assert stop.value.code == 2
    assert f"--split: there is no split test; {tmp_path}/data has train, val" in capsys.readouterr().err
