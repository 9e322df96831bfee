"""Files of questions, as their data sets write them, and what is wrong in one."""

import json

import pytest
from PIL import Image

from minigpt5.evaluation.reading_items import (
    WORDINGS,
    caption_items,
    chat_items,
    coco_items,
    llava_items,
    refcoco_items,
    vqa_items,
)
from minigpt5.storyworld.export import export_cc3m, export_chats
from minigpt5.utils.boxes import parse_box

QUESTION = {"question_id": 262148000, "image_id": 42, "question": "What colour is it?"}
ANSWER = {"answer_id": 1, "answer": "red", "answer_confidence": "yes"}
ANNOTATION = {"question_id": 262148000, "image_id": 42, "question_type": "what", "answer_type": "other"}
REFERRED = {
    "img_id": "COCO_train2014_000000581857_0",
    "sents": "the left fox",
    "bbox": [64.0, 48, 320.0, 240],
    "width": 640,
    "height": 480,
}


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def parts(item):
    return [part["text"] if part["type"] == "text" else part["image"] for part in item.unopened[-1]["content"]]


def vqa(folder, questions=(QUESTION,), answers=(ANSWER, ANSWER, ANSWER | {"answer": "dark red"}), **more):
    questions = write(folder / "q.json", {"data_subtype": "val2014", "questions": [*questions]} | more)
    return questions, write(folder / "a.json", {"annotations": [ANNOTATION | {"answers": [*answers]}]})


def test_questions_of_vqa_have_their_answers_and_pictures(tmp_path):
    (item,) = vqa_items(*vqa(tmp_path))
    assert parts(item) == [
        str(tmp_path / "COCO_val2014_000000000042.jpg"),
        "What colour is it?\nAnswer the question using a single word or phrase.",
    ]
    assert item.answers == ("red", "red", "dark red") and item.image_mode == "never"
    files = vqa(tmp_path, [QUESTION] * 3)
    items = vqa_items(*files, tmp_path / "val", "[vqa] {}", count=2)
    assert [parts(item)[1] for item in items] == ["[vqa] What colour is it?"] * 2
    assert items[0].paths == [str(tmp_path / "val/COCO_val2014_000000000042.jpg")]
    # Questions of one picture hang together.
    assert items[0].group == items[1].group and items[0].id != items[1].id


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"questions": [QUESTION | {"image_id": "42"}]}, r'q.json, questions\[0\]: image_id is "42", expected a whole'),
        ({"questions": [QUESTION, {}]}, r"q.json, questions\[1\]: no question; the fields are none"),
        ({"questions": [QUESTION | {"question_id": 1}]}, r"a.json has no answers to the question 1 of .*s\[0\]"),
        ({"questions": []}, "q.json holds nothing to ask"),
        ({"answers": [ANSWER]}, r"a.json, annotations\[0\]: answers are those of several people, .* got 1"),
        ({"answers": [ANSWER, {}]}, r"a.json, annotations\[0\].answers\[1\]: no answer; the fields are none"),
        ({"data_subtype": None}, "q.json: data_subtype is null, expected a string"),
        ({"questions": [QUESTION | {"question": " "}]}, r"q.json, questions\[0\]: question is empty"),
        ({"questions": [QUESTION | {"image_id": 43}]}, r"image_id is 43, but the answers in .*a.json are about 42"),
    ],
)
def test_what_is_wrong_in_vqa_s_files_is_named(tmp_path, change, told):
    with pytest.raises(ValueError, match=told):
        vqa_items(*vqa(tmp_path, **change))


def test_a_question_of_vqa_is_answered_once(tmp_path):
    questions, answers = vqa(tmp_path)
    write(answers, {"annotations": json.loads(answers.read_text())["annotations"] * 2})
    with pytest.raises(ValueError, match=r"annotations\[1\]: the question 262148000 is answered there twice"):
        vqa_items(questions, answers)


def test_phrases_of_refcoco_have_boxes_in_shares_of_the_picture(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "COCO_train2014_000000581857.png")
    (item,) = refcoco_items(write(tmp_path / "refcoco.json", [REFERRED]), wording="[refer] give me the location of {}")
    assert item.box == (0.1, 0.1, 0.6, 0.6)
    assert parts(item) == [
        str(tmp_path / "COCO_train2014_000000581857.png"),
        "[refer] give me the location of the left fox",
    ]
    assert "Where is the left fox? " in parts(refcoco_items(tmp_path / "refcoco.json")[0])[1]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"bbox": [1, 2, 3]}, r"r.json, \[1\]: bbox is \[1, 2, 3\] in a picture of \[640, 480\], expected left"),
        ({"bbox": [1, 2, 3, "4"]}, "bbox is"),
        ({"bbox": [1, 2, 0, 4]}, "bbox is"),
        ({"bbox": [1, 2, 3, float("nan")]}, "bbox is"),
        ({"bbox": [1, 2, 3, 10**400]}, "bbox is"),
        ({"bbox": [100, 100, 640, 480]}, "leaves its picture of 640 × 480; expected left, top, width and height, not"),
        ({"width": 0}, r"in a picture of \[0, 480\]"),
        ({"sents": ""}, r"r.json, \[1\]: sents is empty"),
        ({"sents": ["one"]}, r'r.json, \[1\]: sents is \["one"\], expected a string'),
    ],
)
def test_what_is_wrong_in_refcoco_s_file_is_named(tmp_path, change, told):
    with pytest.raises(ValueError, match=told):
        refcoco_items(write(tmp_path / "r.json", [REFERRED, REFERRED | change]))


def test_chats_ask_for_their_last_reply(tmp_path):
    def said(role, *content):
        return {"role": role, "content": [*content]}

    look, picture = {"type": "text", "text": "What is it?"}, {"type": "image", "image": "fox.png"}
    reply = {"role": "assistant", "content": "A fox."}
    lines = [[said("user", picture, look), reply], [said("user", look), reply, said("user", picture), reply]]
    lines += [[said("user", look, picture), reply]]
    file = tmp_path / "own.jsonl"
    file.write_text("\n".join(json.dumps({"messages": line}) for line in lines))
    one, other, behind = chat_items(file, "[vqa] {}")
    assert parts(behind) == ["[vqa] What is it?", str(tmp_path / "fox.png")]
    assert parts(one) == [str(tmp_path / "fox.png"), "[vqa] What is it?"]
    assert (one.task, one.text, one.answers) == ("reply", "A fox.", ("A fox.",))
    assert [message["role"] for message in other.unopened] == ["user", "assistant", "user"]
    assert parts(other) == [str(tmp_path / "fox.png"), "[vqa] "]
    assert parts(chat_items(file)[1]) == [str(tmp_path / "fox.png")]
    file.write_text(json.dumps({"messages": [said("user", look), said("assistant", picture)]}))
    with pytest.raises(ValueError, match="line 1: the reply shows a picture"):
        chat_items(file)
    file.write_text(json.dumps({"messages": lines[1], "kind": "ground"}))
    with pytest.raises(ValueError, match=r'line 1: kind is ground, and the reply "A fox\." has no box'):
        chat_items(file)
    flat = said("assistant", {"type": "text", "text": "{<25><10><25><95>}"})
    file.write_text(json.dumps({"messages": [said("user", look), flat], "kind": "ground"}))
    with pytest.raises(ValueError, match="has no box with an area"):
        chat_items(file)
    file.write_text(json.dumps({"messages": [said("user", look), {"role": "assistant", "content": "?!"}]}))
    assert chat_items(file)[0].answers == ()


def test_storyworld_s_questions_say_what_kind_they_are(tmp_path):
    for task in ("question", "ground", "refer"):
        export_chats(task, tmp_path / task, "validation", 6)
    boxes, named = (chat_items(tmp_path / task / "validation.jsonl") for task in ("ground", "refer"))
    assert all(item.box == parse_box(item.text) is not None for item in boxes)
    assert {item.box for item in named} == {None}
    assert {item.task for item in boxes} == {"ground"} and {item.task for item in named} == {"refer"}
    asked = chat_items(tmp_path / "question/validation.jsonl", count=4)
    assert len(asked) == 4 and {item.task for item in asked} <= {
        *("animal", "colour", "place", "time", "side"),
        *("yes or no", "count", "which", "compare", "describe"),
    }
    assert all(Image.open(path).size == (64, 64) for item in asked for path in item.paths)


def test_captions_are_asked_for_of_a_table(tmp_path):
    export_cc3m(tmp_path, "validation", 2)
    one, other = caption_items(tmp_path / "cc3m_validation.tsv")
    assert parts(one) == [str(tmp_path / "validation/000000000.png"), WORDINGS["cc3m"]]
    assert one.text != other.text and one.task == "caption"


COCO = {
    "images": [{"id": 9, "file_name": "COCO_val2014_000000000009.jpg"}, {"id": 25, "file_name": "b.jpg"}],
    "annotations": [
        {"image_id": 25, "id": 1, "caption": "A bear."},
        {"image_id": 9, "id": 2, "caption": "A fox."},
        {"image_id": 9, "id": 3, "caption": "A red fox sits."},
    ],
}


def test_captions_of_coco_are_several_a_picture(tmp_path):
    one, other = coco_items(write(tmp_path / "captions.json", COCO), tmp_path / "val2014", "Describe it.")
    assert parts(one) == [str(tmp_path / "val2014/COCO_val2014_000000000009.jpg"), "Describe it."]
    assert one.captions == ("A fox.", "A red fox sits.") and other.captions == ("A bear.",)
    assert parts(coco_items(tmp_path / "captions.json", count=1)[0])[0].startswith(str(tmp_path / "COCO_val2014"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"annotations": COCO["annotations"][1:]},
            r"c.json, images\[1\]: no annotation has a caption of the picture 25",
        ),
        ({"annotations": [{"image_id": 9}]}, r"c.json, annotations\[0\]: no caption; the fields are image_id"),
        ({"images": [{"id": 9}]}, r"c.json, images\[0\]: no file_name; the fields are id"),
        ({"images": {}}, "c.json: images is {}, expected a list"),
        ({"images": [COCO["images"][0]] * 2}, r"images\[1\]: the picture 9 stands there twice"),
        ({"images": [COCO["images"][0] | {"file_name": ""}]}, r"images\[0\]: file_name is empty"),
    ],
)
def test_what_is_wrong_in_coco_s_file_is_named(tmp_path, change, told):
    with pytest.raises(ValueError, match=told):
        coco_items(write(tmp_path / "c.json", COCO | change))


def test_every_reply_of_llava_s_conversations_is_asked_for(tmp_path):
    said = ["<image>\nWhat is it?", "A fox.", "Where?", "In the snow."]
    turns = [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate(said)]
    data = write(tmp_path / "llava.json", [{"id": "1", "image": "coco/1.jpg", "conversations": turns}])
    one, other = llava_items(data, tmp_path / "pictures")
    assert parts(one) == [str(tmp_path / "pictures/coco/1.jpg"), "What is it?"] and one.text == "A fox."
    assert [message["role"] for message in other.unopened] == ["user", "assistant", "user"]
    assert parts(other) == ["Where?"] and other.text == "In the snow." and other.group == one.group
    assert [item.text for item in llava_items(data, count=1)] == ["A fox."]
    # Replies of a conversation without a picture hang together, and apart from those of the next.
    plain = {"conversations": [{"from": ("human", "gpt")[i % 2], "value": value} for i, value in enumerate("abcd")]}
    groups = [item.group for item in llava_items(write(data, [plain, plain]))]
    assert groups[0] == groups[1] != groups[2] == groups[3]
    with pytest.raises(ValueError, match=r"llava.json, \[0\]: image is empty"):
        llava_items(write(data, [{"image": "", "conversations": turns}]))


def test_a_file_that_is_missing_is_named(tmp_path):
    for read in (chat_items, caption_items, coco_items, llava_items, refcoco_items, lambda file: vqa_items(file, file)):
        with pytest.raises(FileNotFoundError, match=r"nowhere\.json is missing"):
            read(tmp_path / "nowhere.json")
