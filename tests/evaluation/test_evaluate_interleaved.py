"""The evaluation of replies in text and pictures, as a user would run it."""

import json

import pytest
from families import Families

from minigpt5.storyworld.export import export_chats

PROGRAM = "evaluation/evaluate_interleaved"


def results(out):
    return json.loads((out / "results.json").read_text())


def test_storyworld_s_changes_are_judged_by_its_judge(tmp_path, run_program):
    export_chats("change", tmp_path, "validation", 2)
    given = ("--data", tmp_path / "validation.jsonl", "--num-inference-steps", 2, "--out", tmp_path / "out")
    run_program(PROGRAM, *given)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/replies/*.json")}
    run_program(PROGRAM, *given)
    assert len(made) == 2 and all(path.stat().st_mtime_ns == time for path, time in made.items())
    record = results(tmp_path / "out")
    assert {"judge: Picture", "judge: Attributes"} <= record["tasks"]["reply"]["figures"].keys()
    assert record["notes"][-1] == "Figures that begin with “judge” are by StoryWorld's judge."


def test_a_model_judges_benchmarks_by_its_name(tmp_path, tiny_folder, texts, run_program, monkeypatch):
    model, processor = Families(texts)("llava")
    for part in (model, processor):
        part.save_pretrained(tmp_path / "judge")
    monkeypatch.setattr("minigpt5.evaluation.judges.parse_mark", lambda text, most: most / 2)
    opening = {"conversations": [{"input": [{"text": "<BEGIN> Draw a fox.", "image": None}]}, {"output": []}]}
    ueval = {"prompt": "Draw a fox.", "text_rubrics": ["Names it."], "image_rubrics": ["Shows it."]}
    (tmp_path / "opening.json").write_text(json.dumps(opening))
    (tmp_path / "ueval.json").write_text(json.dumps([ueval]))
    given = ("--model", tiny_folder, "--judge", tmp_path / "judge", "--max-new-tokens", 4)
    for layout, count in (("opening", 7), ("ueval", 2)):
        out = tmp_path / layout
        run_program(PROGRAM, *given, "--layout", layout, "--data", tmp_path / f"{layout}.json", "--out", out)
        figures = results(out)["tasks"]["reply"]["figures"]
        judged = [figure for name, figure in figures.items() if name.startswith("judge: ")]
        assert judged == [{"estimate": 0.5}] * count
        assert f"{tmp_path / 'judge'}, sha256:" in results(out)["notes"][-1]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--layout", "ueval"), "judge: StoryWorld's knows nothing of ueval; name a vision-language model"),
        (("--judge", "nowhere"), "judge: unknown model 'nowhere'"),
        (("--judge", "owner/nowhere"), "nowhere.jsonl is missing"),
        (("--layout", "vist"), "layout is 'vist', must be one of chat, opening, ueval"),
        (("--max-images", 0), "max_images is 0, must be at least 1"),
        (("--baseline", "mine"), "baseline is 'mine', must be one of"),
        ((), "nowhere.jsonl is missing"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(given, told, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(PROGRAM, "--data", "nowhere.jsonl", "--out", "out", *given).startswith(told)
    assert list(tmp_path.iterdir()) == []


def test_a_judge_that_is_not_there_is_told_before_anything_is_asked(tmp_path, refused):
    export_chats("paint", tmp_path, "validation", 1)
    given = ("--data", tmp_path / "validation.jsonl", "--out", tmp_path / "out")
    assert refused(PROGRAM, *given, "--judge", "owner/nowhere").startswith("owner/nowhere is no folder, no shipped")
    (tmp_path / "validation_truth.json").unlink()
    assert "the judge can only mark data of training/export_storyworld.py" in refused(PROGRAM, *given)
    assert not (tmp_path / "out").exists()
