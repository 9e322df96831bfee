"""Files of wishes, as benchmarks write them, and what is wrong in one."""

import json

import pytest

from minigpt5.evaluation.interleaved_items import OPENING_CRITERIA, opening_items, ueval_items, wish_items
from minigpt5.evaluation.items import Criterion
from minigpt5.storyworld.export import export_chats

INSTANCE = {
    "total_uid": "0301096",
    "meta_task_name": "Multimodal Content Completion",
    "conversations": [
        {
            "input": [
                {"image": "./images/96-i-1.jpg", "text": "Go on. <BEGIN> A fox wakes up. <image>"},
                {"image": None, "text": "It snows."},
            ]
        },
        {"output": [{"image": "./images/96-o-1.jpg", "text": "It plays. <image>"}]},
    ],
}
QUESTION = {
    "id": "art_1",
    "prompt": "How is a fox drawn?",
    "task_type": "art",
    "text_rubrics": [{"criterion": "Names the pencil.", "tags": []}],
    "image_rubrics": ["Shows a fox.", {"criterion": "Shows four steps."}],
}


def lines(path, *rows):
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def parts(item):
    (message,) = item.unopened
    return [part["text"] if part["type"] == "text" else part["image"] for part in message["content"]]


def test_opening_s_inputs_are_asked_without_their_marks(tmp_path):
    (item,) = opening_items(lines(tmp_path / "test_data.jsonl", INSTANCE))
    assert parts(item) == ["Go on.  A fox wakes up.", str(tmp_path / "images/96-i-1.jpg"), "It snows."]
    assert item.criteria == OPENING_CRITERIA and len(OPENING_CRITERIA) == 7
    assert (item.image_mode, item.text, item.picture) == ("auto", None, None)
    assert len(opening_items(lines(tmp_path / "two.jsonl", INSTANCE, INSTANCE), count=1)) == 1


@pytest.mark.parametrize(
    ("conversations", "told"),
    [
        ([], r"a.jsonl, line 2, conversations\[0\]: expected an object with input, got null"),
        ([{"output": []}], r"line 2, conversations\[0\]: no input; the fields are output"),
        ([{"input": [{"image": None}]}], r"line 2, conversations\[0\].input\[0\]: no text; the fields are image"),
        ([{"input": [{"image": 3, "text": ""}]}], r"input\[0\]: image is 3, expected a string"),
        ([{"input": [{"image": None, "text": "<BEGIN> "}]}], "line 2: the input says and shows nothing"),
    ],
)
def test_what_is_wrong_in_opening_s_file_is_named(tmp_path, conversations, told):
    with pytest.raises(ValueError, match=told):
        opening_items(lines(tmp_path / "a.jsonl", INSTANCE, {"conversations": conversations}))


def test_what_is_saved_a_question_a_line_is_told(tmp_path):
    (tmp_path / "u.json").write_text("\n".join([json.dumps(QUESTION)] * 2))
    with pytest.raises(ValueError, match=r"line 2, column 1: not JSON \(Extra data: a value a line, where one is"):
        ueval_items(tmp_path / "u.json")


def test_ueval_s_rubrics_are_criteria_of_text_and_of_pictures(tmp_path):
    data = tmp_path / "ueval.json"
    data.write_text(json.dumps([QUESTION]))
    (item,) = ueval_items(data)
    assert parts(item) == ["How is a fox drawn?"]
    assert item.criteria == (
        Criterion("text", "Names the pencil.", 1),
        Criterion("image", "Shows a fox.", 1),
        Criterion("image", "Shows four steps.", 1),
    )


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"prompt": None}, r"u.json, \[1\]: prompt is null, expected a string"),
        (
            {"text_rubrics": [3]},
            r"u.json, \[1\].text_rubrics\[0\]: expected a text or an object with criterion, got 3",
        ),
        ({"prompt": " "}, r"u.json, \[1\]: prompt is empty"),
        ({"text_rubrics": [""]}, r"text_rubrics\[0\]: expected a text or an object with criterion, got"),
        ({"image_rubrics": [{"criterion": ""}]}, r"image_rubrics\[0\]: criterion is empty"),
        ({"image_rubrics": [{}]}, r"\[1\].image_rubrics\[0\]: no criterion; the fields are none"),
        ({"text_rubrics": [], "image_rubrics": []}, r"\[1\]: text_rubrics and image_rubrics are empty"),
    ],
)
def test_what_is_wrong_in_ueval_s_file_is_named(tmp_path, change, told):
    (tmp_path / "u.json").write_text(json.dumps([QUESTION, QUESTION | change]))
    with pytest.raises(ValueError, match=told):
        ueval_items(tmp_path / "u.json")


def test_storyworld_s_changes_have_text_and_picture(tmp_path):
    export_chats("change", tmp_path, "validation", 2)
    one, _ = wish_items(tmp_path / "validation.jsonl")
    shown, said = parts(one)
    assert shown == str(tmp_path / "validation/000000000-0.png") and said
    assert one.picture == str(tmp_path / "validation/000000000-1.png") and one.text


def test_a_file_that_is_missing_or_empty_is_named(tmp_path):
    for read in (wish_items, opening_items, ueval_items):
        with pytest.raises(FileNotFoundError, match="nowhere is missing"):
            read(tmp_path / "nowhere")
        (tmp_path / "empty").write_text("[]" if read is ueval_items else "")
        with pytest.raises(ValueError, match="empty holds nothing to ask"):
            read(tmp_path / "empty")
