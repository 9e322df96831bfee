"""Two models are asked the same, and whether one should replace the other follows from intervals."""

import json

import pytest

from minigpt5 import cli
from minigpt5.evaluation import compare as comparing
from minigpt5.evaluation.compare import chat_items, chat_marks, compare


def marks(right, count=40):
    return [1.0] * right + [0.0] * (count - right)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ({"one": marks(5), "two": marks(20)}, {"one": marks(35), "two": marks(20)}, "replace"),
        ({"one": marks(35), "two": marks(20)}, {"one": marks(5), "two": marks(20)}, "keep"),
        ({"one": marks(5), "two": marks(35)}, {"one": marks(35), "two": marks(5)}, "undecided"),
        ({"one": marks(20), "two": marks(20)}, {"one": marks(21), "two": marks(19)}, "undecided"),
    ],
)
def test_the_verdict_follows_from_what_is_sure(a, b, verdict):
    assert compare(a, b).verdict == verdict


def test_figures_are_those_of_both_models_and_their_paired_difference():
    told = compare({"one": marks(10)}, {"one": marks(30)})
    figure = told.figures["one"]
    assert (figure.a, figure.b, figure.items, figure.difference.estimate) == (0.25, 0.75, 40, 0.5)
    # Half of the items differ, each by 1: the mean of 40 draws has the standard error sqrt(0.25 / 40).
    assert figure.difference.low == pytest.approx(0.5 - 1.96 * 0.079, abs=0.03)
    assert figure.difference.high == pytest.approx(0.5 + 1.96 * 0.079, abs=0.03)
    assert told.record()["figures"]["one"]["difference"] == list(figure.difference)
    # Of two figures each is less sure, so that both are together as sure.
    wider = compare({"one": marks(10), "two": marks(1)}, {"one": marks(30), "two": marks(1)})
    assert wider.figures["one"].difference.low < figure.difference.low


def test_marks_are_right_and_wrong_too():
    a, b = marks(10), marks(30)
    told_a, told_b = ([mark == 1 for mark in each] for each in (a, b))
    assert compare({"one": told_a}, {"one": told_b}).record() == compare({"one": a}, {"one": b}).record()


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ValueError, match="both need the same figures, got one and two"):
        compare({"one": marks(1)}, {"two": marks(1)})
    with pytest.raises(ValueError, match="one has 9 items; a comparison needs at least 10"):
        compare({"one": marks(1, 9)}, {"one": marks(1, 9)})


@pytest.fixture
def chats(tmp_path, pictures):
    """Twelve conversations: a picture is read in each, and the last reply has a picture too."""
    folder = tmp_path / "chat"
    folder.mkdir()
    pictures[0].save(folder / "fox.png")
    shown = {"type": "image", "image": "fox.png"}
    question = {"role": "user", "content": [shown, {"type": "text", "text": "What do you see?"}]}
    replies = [[{"type": "text", "text": "A fox."}]] * 11 + [[{"type": "text", "text": "A fox."}, shown]]
    lines = [json.dumps({"messages": [question, {"role": "assistant", "content": reply}]}) for reply in replies]
    (folder / "validation.jsonl").write_text("\n".join(lines))
    return folder


def test_words_and_the_number_of_pictures_are_marked(chats, pipe, script):
    items = chat_items(chats)
    assert len(items) == 12 and items[0].messages[0]["content"][0]["image"] == str(chats / "fox.png")
    first = pipe.reader.voken_ids[0]
    script(["a fox ."], ["a cat ."], *[["a fox ."]] * 9, ["a fox .", first])
    told = chat_marks(pipe, items)
    assert told["exact match"] == [1, 0, *[1] * 10]
    assert told["ROUGE-L"] == [1, 0.5, *[1] * 10]


def test_words_are_not_compared_where_few_replies_have_some(chats, pipe, script):
    lines = [json.loads(line) for line in (chats / "validation.jsonl").read_text().splitlines()]
    for line in lines[3:]:
        line["messages"][-1]["content"] = [{"type": "image", "image": "fox.png"}]
    (chats / "validation.jsonl").write_text("\n".join(map(json.dumps, lines)))
    script(*[["a fox ."]] * 12)
    assert chat_marks(pipe, chat_items(chats)).keys() == {"exact match"}


def test_the_command_tells_and_writes_the_figures(chats, tiny_folder, monkeypatch, capsys, tmp_path):
    replies = iter([{"exact match": marks(5)}, {"exact match": marks(35)}] * 2)
    seen = []
    monkeypatch.setattr(comparing, "chat_marks", lambda pipe, items: seen.append(len(items)) or next(replies))
    arguments = ["compare", str(tiny_folder), str(tiny_folder), "--data", str(chats), "--count", "11"]
    assert cli.main([*arguments, "--out", str(tmp_path / "out.json")]) == 0
    *figures, verdict = capsys.readouterr().out.splitlines()
    assert verdict == "replace" and seen == [11, 11]
    assert figures[0].startswith("exact match  A 0.125  B 0.875  B - A +0.750 [+0.6")
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["verdict"] == "replace" and record["a"] == record["b"] and record["data"] == str(chats)
    assert record["figures"]["exact match"]["b"] == 0.875


def test_what_cannot_be_asked_is_one_line(tiny_folder, chats, capsys, tmp_path):
    with pytest.raises(ValueError, match=r"validation.jsonl has 9 items; a comparison needs at least 10"):
        chat_items(chats, 9)
    assert cli.main(["compare", str(tiny_folder), str(tiny_folder), "--data", str(tmp_path / "none")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and "none is missing, or no folder in the layout chat" in err
