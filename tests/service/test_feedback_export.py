"""What people think of replies becomes data to train on, and what cannot be used is one line."""

import json
import sqlite3

import numpy as np
import pytest

from minigpt5 import cli
from minigpt5.data.readers import read_chat
from minigpt5.service.export import export_feedback
from minigpt5.service.feedback import Feedback, FeedbackStore


def asked(text, picture=None):
    shown = [] if picture is None else [{"type": "image", "image": picture}]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


@pytest.fixture
def put(tmp_path):
    store = FeedbackStore(tmp_path / "feedback.sqlite")

    def put(messages, reply, rating, correction=None):
        number = sum(1 for _ in store)
        store.put(Feedback(f"{number}", {"name": "m"}, messages, {}, 0, reply, rating, correction))
        return store.path

    return put


@pytest.fixture
def fill(put):
    """Twenty requests, of which some are of either split whatever else there is."""
    for number in range(20):
        store = put(asked(f"How many? {number}"), [f"{number}."], "up")
    return store


def rows(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def both(out, folder="."):
    return [row for split in ("train", "validation") for row in rows(out / folder / f"{split}.jsonl")]


def test_corrections_and_thumbs_up_are_conversations(put, fill, pictures, tmp_path):
    put(asked("Who?", pictures[0]), ["A dog."], "down", ["A fox.", pictures[1]])
    put(asked("Where?"), ["There."], "down")
    put(asked("When?"), [], "up")
    counts = export_feedback(fill, tmp_path / "out/chat")
    told = [[part.get("text") for part in row["messages"][-1]["content"]] for row in both(tmp_path / "out/chat")]
    assert sorted(told, key=str) == sorted([*[[f"{i}."] for i in range(20)], ["A fox.", None]], key=str)
    assert counts == json.loads((tmp_path / "out/chat/feedback.json").read_text())
    assert sum(counts["conversations"].values()) == 21 and min(counts["conversations"].values()) > 0
    # As training reads it, pictures and all.
    found = [row["messages"] for split in ("train", "validation") for row in read_chat(tmp_path / "out/chat", split)]
    (question, answer) = next(messages for messages in found if messages[0]["content"][-1]["text"] == "Who?")
    assert np.array_equal(np.asarray(question["content"][0]["image"]), np.asarray(pictures[0]))
    assert answer["role"] == "assistant" and answer["content"][0]["text"] == "A fox."
    assert np.array_equal(np.asarray(answer["content"][1]["image"]), np.asarray(pictures[1]))


def test_a_request_stays_in_its_split(put, fill, tmp_path):
    export_feedback(fill, tmp_path / "before")
    before = [rows(tmp_path / "before" / f"{split}.jsonl") for split in ("train", "validation")]
    put(asked("How many? 3"), ["Three."], "up")
    put(asked("How many? 99"), ["99."], "up")
    export_feedback(fill, tmp_path / "after")
    for split, earlier in zip(("train", "validation"), before, strict=True):
        later = rows(tmp_path / "after" / f"{split}.jsonl")
        assert all(row in later for row in earlier)
    replies = [rows(tmp_path / "after" / f"{split}.jsonl") for split in ("train", "validation")]
    texts = [[row["messages"][1]["content"][0]["text"] for row in split] for split in replies]
    assert [texts.index(split) for split in texts if "Three." in split] == [
        texts.index(split) for split in texts if "3." in split
    ]


def test_preferences_are_what_is_good_over_what_is_bad_for_the_same_request(put, fill, pictures, tmp_path):
    who, draw = asked("Who?", pictures[0]), asked("Draw a fox.")
    put(who, ["A dog."], "down", ["A fox."])
    put(who, ["A cat."], "down")
    put(who, ["A fox."], "up")
    put(asked("Who?", pictures[1]), ["A hen."], "down")
    # The same words with another picture; then none where one was wanted.
    put(draw, ["Here.", pictures[0]], "down", ["Here.", pictures[1]])
    put(draw, ["Here."], "down")
    counts = export_feedback(fill, tmp_path / "out")
    assert sum(counts["preferences"].values()) == 3
    told = {}
    for row in both(tmp_path / "out", "preferences"):
        chosen, rejected = row["chosen"][0], row["rejected"][0]
        assert chosen["role"] == rejected["role"] == "assistant" and row["prompt"][-1]["role"] == "user"
        told.setdefault(row["prompt"][-1]["content"][-1]["text"], []).append((chosen["content"], rejected["content"]))
    fox, dog, cat = ([{"type": "text", "text": f"A {kind}."}] for kind in ("fox", "dog", "cat"))
    assert told["Who?"] == [(fox, dog), (fox, cat)]
    ((chosen, rejected),) = told["Draw a fox."]
    assert [part["type"] for part in chosen] == ["text", "image"] and len(rejected) == 1
    assert (tmp_path / "out/preferences" / chosen[1]["image"]).resolve().is_file()


def test_a_correction_that_changes_nothing_is_a_thumb_down(put, fill, pictures, tmp_path):
    put(asked("Who?"), ["A dog.", pictures[0]], "down", ["A dog.", pictures[0]])
    put(asked("Who?"), ["A fox."], "up", ["A fox."])
    counts = export_feedback(fill, tmp_path / "out")
    told = [row["messages"][-1]["content"] for row in both(tmp_path / "out") if len(row["messages"][-1]["content"]) > 1]
    assert told == [] and sum(counts["conversations"].values()) == 21
    (row,) = both(tmp_path / "out", "preferences")
    assert [row[name][0]["content"][0]["text"] for name in ("chosen", "rejected")] == ["A fox.", "A dog."]


def refusal(capsys, *arguments):
    assert cli.main(["feedback", "export", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith("minigpt5: error: ")
    return err


def test_the_command_exports_and_replaces_what_it_wrote(put, fill, capsys, tmp_path):
    out = tmp_path / "out"
    assert cli.main(["feedback", "export", str(fill), "--out", str(out)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("conversations: ") and told[1] == "preferences: 0 train, 0 validation"
    assert told[2] == str(out)
    put(asked("Who?"), ["A fox."], "up")
    assert cli.main(["feedback", "export", str(fill), "--out", str(out)]) == 0
    assert len(both(out)) == 21


@pytest.mark.parametrize("name", ["feedback.sqlite", "thesis.txt", "pictures/fox.png", "preferences/mine.jsonl"])
def test_an_earlier_export_to_which_something_was_added_stays(fill, capsys, tmp_path, name):
    out = tmp_path / "out"
    export_feedback(fill, out)
    (out / name).write_bytes(fill.read_bytes())
    before = sorted(out.rglob("*"))
    assert f"out holds other files, such as {name}; name a new folder" in refusal(capsys, fill, "--out", out)
    assert sorted(out.rglob("*")) == before


def test_a_record_of_something_else_is_not_replaced(fill, capsys, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/feedback.json").write_text('{"my": "own"}')
    assert "feedback.json is of no export" in refusal(capsys, fill, "--out", tmp_path / "out")


def test_a_thumb_up_is_chosen_over_a_reply_that_was_corrected(put, fill, tmp_path):
    put(asked("Who?"), ["A fox."], "up")
    put(asked("Who?"), ["A dog."], "down", ["A red fox."])
    export_feedback(fill, tmp_path / "out")
    pairs = [
        [row[name][0]["content"][0]["text"] for name in ("chosen", "rejected")]
        for row in both(tmp_path / "out", "preferences")
    ]
    assert sorted(pairs) == [["A fox.", "A dog."], ["A red fox.", "A dog."]]


def test_what_cannot_be_exported_is_one_line_and_nothing_is_written(put, fill, capsys, tmp_path):
    out = tmp_path / "out"
    assert "nowhere is no file of feedback" in refusal(capsys, tmp_path / "nowhere", "--out", out)
    (tmp_path / "text").write_text("no database, but long enough for the header of one" * 20)
    assert "text is no file of feedback" in refusal(capsys, tmp_path / "text", "--out", out)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/train.jsonl").write_text("{}")
    assert "holds other files and no feedback.json" in refusal(capsys, fill, "--out", tmp_path / "mine")
    put(asked("Who?"), ["A fox."], "up")
    with sqlite3.connect(fill) as connection:
        connection.execute("UPDATE feedback SET reply = '[{' WHERE id = '20'")
    assert "the row 20 is broken" in refusal(capsys, fill, "--out", out)
    with sqlite3.connect(fill) as connection:
        connection.execute("DELETE FROM feedback WHERE id != '0'")
    assert "for the split validation (one request in 10 is of validation): gather more" in refusal(
        capsys, fill, "--out", out
    )
    with sqlite3.connect(fill) as connection:
        connection.execute("DROP TABLE feedback")
    assert "feedback.sqlite: no such table" in refusal(capsys, fill, "--out", out)
    assert not out.exists() and [path.name for path in (tmp_path / "mine").iterdir()] == ["train.jsonl"]
