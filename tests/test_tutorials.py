"""The tutorials' notebooks run from top to bottom, and what they show is there."""

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from minigpt5.storyworld.judge import load_judge

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs a notebook's cells one after another, in a folder from which all lies where it does from its own."""
    (tmp_path / "docs/tutorials").mkdir(parents=True)
    for name in ("docs/images", "training", "configs"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path / "docs/tutorials")
    monkeypatch.setattr(sys, "argv", sys.argv)

    def run(name):
        torch.manual_seed(0)
        path, names = DOCS / "tutorials" / f"{name}.ipynb", {}
        for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            if cell["cell_type"] == "code":
                exec(compile("".join(cell["source"]), f"{name}, cell {number}", "exec"), names)
        return names

    return run


@pytest.mark.parametrize("path", sorted(DOCS.rglob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_kept_without_what_they_printed(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


def test_first_reply(run):
    shown = run("first-reply")
    (verdict,) = load_judge().read([shown["fox"]])
    (character,) = verdict.characters
    assert (character.colour, character.kind, verdict.place, verdict.time) == ("red", "fox", "beach", "night")
    assert "fox" in shown["seen"].text[0]
    assert [type(part) for part in shown["both"].segments[0]] == [str, Image.Image]
    assert [len(pictures) for pictures in shown["batch"].images] == [1, 0]
    assert "".join(event.text for event in shown["events"][:-1]) == shown["both"].text[0]
    assert [message["role"] for message in shown["chat"].messages] == ["user", "assistant"] * 2
    # The picture that was asked about, and the one that was painted.
    assert Path("replies.html").read_text(encoding="utf-8").count("<img") == 2


def test_storybook(run):
    shown = run("storybook")
    story = shown["story"]
    assert [step.index for step in story] == [1, 2, 3] and story[0].text == shown["opening"]
    assert [verdict.characters[0].kind for verdict in load_judge().read([step.image for step in story])] == ["fox"] * 3
    assert shown["other"][1].text not in {step.text for step in story}
    assert shown["after"].text[0] and len(shown["after"].images[0]) == 1
    names = {"index.html", "story.json", "step-1.png", "step-2.png", "step-3.png"}
    assert {path.name for path in Path("my-story").iterdir()} == names


def test_own_pictures(run):
    shown = run("own-pictures")
    index = json.loads((shown["here"] / "painter/model/model_index.json").read_text(encoding="utf-8"))
    assert index["_class_name"] == "StableDiffusionPipeline"
    # The painter's tokenizer has learnt the words of the names that are not held back.
    words = shown["pipe"].tokenizer.get_vocab().keys()
    assert {"▁red", "▁square"} < words and "▁white" not in words
    assert type(shown["pipe"].mapper).__name__ == "QueryConnector" and shown["pipe"].reader.n_vokens == 32
    assert [len(pictures) for pictures in shown["reply"].images] == [1, 1]


def test_join_two_models(run):
    shown = run("join-two-models")
    assert shown["history"][-1] < shown["history"][0] / 3
    assert shown["after"].text == ["Here it is."] and len(shown["after"].images[0]) == 1
    mapper = json.loads(Path("joined/mapper/config.json").read_text(encoding="utf-8"))
    assert (mapper["_class_name"], mapper["text_length"], mapper["num_layers"]) == ("QueryConnector", 32, 2)


def test_serve(run):
    shown = run("serve")
    kinds = [verdict.characters[0].kind for verdict in load_judge().read(shown["pictures"])]
    assert kinds == ["fox", "cat"]
    assert "fox" in shown["seen"].choices[0].message.content
    assert len(shown["pieces"]) > 3 and "".join(shown["pieces"]).strip().endswith(".")
    assert len({picture.b64_json for picture in shown["drawn"].data}) == 2
    assert not shown["thread"].is_alive() and not shown["engine"].running


def test_tools(run):
    shown = run("tools")
    assert shown["alike"] is False
    assert shown["shape"]["function"]["parameters"]["required"] == ["description"]
    assert shown["kept"] == ["picture-3", "picture-4"]
    verdicts = load_judge().read([shown["bench"].pictures[name] for name in shown["kept"]])
    assert [verdict.characters[0].kind for verdict in verdicts] == ["fox", "turtle"]
    assert len(shown["refusals"]) == 4 and all(told.startswith("line 1: ") for told in shown["refusals"])
