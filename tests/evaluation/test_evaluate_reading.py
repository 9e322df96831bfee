"""The evaluation of what reads, as a user would run it."""

import json
import shutil

import pytest
from families import Families

from minigpt5.storyworld.export import export_cc3m, export_chats

PROGRAM = "evaluation/evaluate_reading"


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Six questions, three boxes and two captions of StoryWorld."""
    root = tmp_path_factory.mktemp("asked")
    for task, count in (("question", 6), ("ground", 3)):
        export_chats(task, root / task, "validation", count)
    export_cc3m(root / "cc3m", "validation", 2)
    return root


def tasks_of(out):
    return json.loads((out / "results.json").read_text())["tasks"]


def test_storyworld_s_questions_are_marked_by_kind(asked, tmp_path, run_program):
    given = ("--data", asked / "question/validation.jsonl", "--judge", "storyworld", "--out", tmp_path)
    run_program(PROGRAM, *given, "--count", 4)
    replies = {path: path.stat().st_mtime_ns for path in tmp_path.glob("replies/*.json")}
    run_program(PROGRAM, *given)
    assert len(replies) == 4 and all(path.stat().st_mtime_ns == time for path, time in replies.items())
    tasks = tasks_of(tmp_path)
    assert sum(task["items"] for task in tasks.values()) == 6
    for task in tasks.values():
        assert {"answer_accuracy", "exact_match", "rouge_l"} < task["figures"].keys()
        assert "text_accuracy" not in task["figures"] and task["pictures"] == 0
    assert (tmp_path / "results.md").read_text().startswith("# Reading")


def test_boxes_are_marked_too(asked, tmp_path, run_program):
    given = ("--data", asked / "ground/validation.jsonl", "--judge", "storyworld", "--out", tmp_path)
    run_program(PROGRAM, *given)
    (task,) = tasks_of(tmp_path).values()
    assert task["items"] == 3 and {"low", "high"} < task["figures"]["answer_accuracy"].keys()
    assert {"grounding_accuracy", "mean_iou"} < task["figures"].keys()


def test_the_miniature_s_captions_name_what_pictures_show(asked, tmp_path, run_program):
    given = ("--layout", "cc3m", "--data", asked / "cc3m/cc3m_validation.tsv", "--out", tmp_path)
    run_program(PROGRAM, *given, "--judge", "storyworld")
    (task,) = tasks_of(tmp_path).values()
    assert task["figures"]["text_kind_accuracy"]["estimate"] == 1 and {"bleu_1", "cider"} < task["figures"].keys()


@pytest.mark.parametrize("family", ["llava", "composed_llava", "qwen2_5_vl"])
def test_a_model_that_only_reads_answers_vqa_and_refcoco(texts, asked, tmp_path, run_program, family):
    model, processor = Families(texts)(family)
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    picture = asked / "cc3m/validation/000000000.png"
    for name in ("COCO_val2014_000000000042.jpg", "COCO_train2014_000000581857.jpg"):
        shutil.copy(picture, tmp_path / name)
    question = {"question_id": 7, "image_id": 42, "question": "What is it?"}
    answers = [{"answer": "fox"}] * 10
    referred = {"img_id": "COCO_train2014_000000581857", "sents": "the fox", "bbox": [8, 8, 32, 32]}
    files = {
        "q.json": {"data_subtype": "val2014", "questions": [question]},
        "a.json": {"annotations": [{"question_id": 7, "answers": answers}]},
        "r.json": [referred | {"width": 64, "height": 64}],
    }
    for name, content in files.items():
        (tmp_path / name).write_text(json.dumps(content))
    given = ("--model", tmp_path / "model", "--max-new-tokens", 3)
    vqa = ("--layout", "vqa", "--data", tmp_path / "q.json", "--annotations", tmp_path / "a.json")
    run_program(PROGRAM, *given, *vqa, "--out", tmp_path / "vqa")
    (task,) = tasks_of(tmp_path / "vqa").values()
    assert task["figures"].keys() == {"exact_match", "vqa_accuracy"} and task["items"] == 1
    run_program(PROGRAM, *given, "--layout", "refcoco", "--data", tmp_path / "r.json", "--out", tmp_path / "refcoco")
    (task,) = tasks_of(tmp_path / "refcoco").values()
    assert task["figures"].keys() == {"grounding_accuracy", "mean_iou", "box_share"}


def test_a_question_that_is_too_long_is_passed_over_and_noted(tmp_path, run_program):
    look, reply = {"type": "text", "text": "What is it?"}, {"role": "assistant", "content": "A fox."}
    asked = [look, {"type": "text", "text": "Which animal is this? " * 1000}]
    lines = [{"messages": [{"role": "user", "content": [part]}, reply]} for part in asked]
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, lines)))
    given = ("--data", tmp_path / "chats.jsonl", "--max-new-tokens", 3, "--max-bad-share", 0.9)
    run_program(PROGRAM, *given, "--out", tmp_path / "out")
    assert sum(task["items"] for task in tasks_of(tmp_path / "out").values()) == 1
    assert "tokens long, but the model's context holds" in (tmp_path / "out/results.md").read_text()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (("--layout", "vqa"), "annotations: the layout vqa has such a file and no other, layout is vqa"),
        (("--annotations", "a.json"), "annotations: the layout vqa has such a file and no other, layout is chat"),
        (("--images", "."), "images: the layout chat names its pictures relative to its file"),
        (("--layout", "refcoco", "--images", "nowhere"), "images: there is no nowhere"),
        (("--wording", "What is it?"), "wording: a wording of the layout chat has {} for the question"),
        (("--layout", "cc3m", "--wording", "{}?"), "wording: a wording of the layout cc3m asks all pictures"),
        (("--layout", "vist"), "layout is 'vist', must be one of chat, chat-llava, cc3m, coco, vqa, refcoco"),
        (("--model", "nowhere"), "unknown model 'nowhere'"),
        (("--adapter", "nowhere"), "adapter: nowhere is not the folder of one"),
        (("--sentences", "nowhere"), "sentences: there is no nowhere"),
        (("--max-new-tokens", 0), "max_new_tokens is 0, must be at least 1"),
        (("--batch-size", 0), "batch_size is 0, must be at least 1"),
        ((), "nowhere.jsonl is missing"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(given, told, refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert refused(PROGRAM, "--data", "nowhere.jsonl", "--out", "out", *given).startswith(told)
    assert list(tmp_path.iterdir()) == []


def test_what_storyworld_s_judge_cannot_mark_is_one_line(refused, tmp_path):
    told = refused(PROGRAM, "--layout", "coco", "--data", tmp_path, "--judge", "storyworld", "--out", tmp_path)
    assert told == "judge: StoryWorld writes the layouts chat and cc3m, and knows nothing of coco\n"
    line = {"kind": "animal", "messages": [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "?"}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    told = refused(PROGRAM, "--data", tmp_path / "a.jsonl", "--judge", "storyworld", "--out", tmp_path / "out")
    assert told.endswith('000000: the reply "?" names nothing that a reply of the kind animal is marked by\n')
    assert not (tmp_path / "out").exists()
