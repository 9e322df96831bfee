"""Batches drawn from several data sets by task."""

import json
import random
import shutil
from collections import Counter

import pytest
import torch
from PIL import Image

from minigpt5.data import mixture, published
from minigpt5.data.mixture import TASKS, TEXT_TASKS, Mixture
from minigpt5.data.tolerant import TooManyBadRows
from minigpt5.readers.prompts import Example
from minigpt5.storyworld.export import EXPORTS
from minigpt5.utils.images import pad_to_square


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Ten items of each layout."""
    root = tmp_path_factory.mktemp("world")
    for name, export in EXPORTS.items():
        export(root / name, "train", 10)
    return root


def words(drawn):
    """What a conversation says, without its pictures."""
    if isinstance(drawn.item, Example):
        return str([*drawn.item.source, *drawn.item.target])
    return str([[part.get("text", part["type"]) for part in message["content"]] for message in drawn.item])


def test_a_batch_has_so_many_of_each_task_and_depends_on_its_index_alone(world):
    draw = Mixture(world, {"draw": 3, "story": 2, "talk_text": 1})
    batch = draw(4)
    assert [one.caption is not None for one in batch] == [True] * 3 + [False] * 3
    again = Mixture(world, {"draw": 3, "story": 2, "talk_text": 1})
    again(0)
    assert [words(one) for one in again(4)] == [words(one) for one in batch]
    assert [words(one) for one in draw(5)] != [words(one) for one in batch]


def test_every_row_comes_once_before_any_comes_twice(world):
    draw = Mixture(world, {"draw": 4}, seed=3)
    seen = [one.caption for index in range(10) for one in draw(index)]
    captions = set(draw.rows["cc3m"].rows["caption"])
    assert len(captions) == 10
    for epoch in range(4):
        assert set(seen[10 * epoch : 10 * epoch + 10]) == captions
    assert seen[:10] != seen[10:20]


def test_processes_share_a_batch(world, monkeypatch):
    draw = Mixture(world, {"draw": 3, "caption": 2})
    whole = [words(one) for one in draw(0)]
    parts = []
    for rank in range(2):
        monkeypatch.setattr(mixture, "shard", lambda places, rank=rank: places[rank::2])
        parts += [words(one) for one in draw(0)]
    assert Counter(parts) == Counter(whole)


@pytest.mark.parametrize("task", sorted(TASKS.keys() - {"chat"}))
def test_each_task_gives_what_can_be_learnt(world, task, tiny_processor):
    items = [one.item for one in Mixture(world, {task: 6})(0)]
    batch = tiny_processor.training_batch(items)
    assert len(batch["labels"]) == 6 and (batch["labels"] != -100).any(1).all()
    assert (len(batch["targets"]) > 0) == (task not in TEXT_TASKS)


@pytest.mark.parametrize("task", ["published_cc3m", "published_vist", "published_mmdialog"])
def test_of_a_row_s_published_examples_the_one_that_is_drawn_alone_is_made(world, task, monkeypatch):
    drawn = Mixture(world, {task: 8})
    padded = []
    monkeypatch.setattr(published, "pad_to_square", lambda picture: padded.append(picture) or pad_to_square(picture))
    made = [one.item for one in drawn(0)]
    assert len(padded) == sum(len(example.outputs) for example in made) > 0


def test_of_published_captions_one_in_101_is_a_command():
    row = {"caption": "a red fox", "image": Image.new("RGB", (2, 2))}
    draw = TASKS["published_cc3m"][1]
    made = [draw(row, random.Random(number), None).item.source for number in range(4040)]
    assert sum(any("###Human" in str(piece) for piece in source) for source in made) == pytest.approx(40, abs=15)


def test_published_talks_end_before_a_long_turn_where_there_is_a_tokenizer(own, tiny_processor):
    write(own, "mmdialog", "some", [[("good", True), ("good", True)], [("bad " * 51, True), ("bad", True)]])
    settings = ({"published_mmdialog": 6}, "some")
    cut = Mixture(own, *settings, max_bad_share=0.9, tokenizer=tiny_processor.tokenizer)
    assert [heard(one) for one in cut(0)] == [["good"]] * 6
    assert ["bad"] in [heard(one) for one in Mixture(own, *settings)(0)]


def test_own_chats_are_a_task(world, tmp_path):
    (tmp_path / "chat").mkdir()
    line = '{"messages": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hi."}]}\n'
    (tmp_path / "chat/train.jsonl").write_text(line * 2)
    ((item, caption),) = Mixture(tmp_path, {"chat": 1})(0)
    assert item[-1]["content"] == "Hi." or item[-1]["content"][0]["text"] == "Hi."
    assert caption is None


def test_questions_are_prompts_whose_reply_paints(world):
    questions = Mixture(world, {"caption": 1, "draw": 1, "published_vist": 1}).questions(3)
    assert len(questions) == 3
    assert all(question.outputs if isinstance(question, Example) else question for question in questions)


def write(root, kind, split, rows):
    """Stories of texts, or talks of (text, whether it shows a picture); one picture serves all."""
    folder = root / kind
    picture = str(
        next((folder / "train_images").iterdir()) if kind == "vist" else next((folder / "train").glob("*.png"))
    )
    if kind == "vist":
        told = [[{"caption": text, "image_id": "1", "sequence_index": i} for i, text in enumerate(row)] for row in rows]
        (folder / f"{split}_cleaned.json").write_text(json.dumps(dict(enumerate(told))))
        (folder / f"{split}_image_mapping.json").write_text(json.dumps({"1": picture}))
        return
    lines = []
    for row in rows:
        turns = [
            {"turn": [{"__TEXT__": text}, *([{"__MEDIA__": "1", "path": picture}] if shown else [])]}
            for text, shown in row
        ]
        lines.append(json.dumps({"conversation": turns}) + "\n")
    (folder / split).mkdir(exist_ok=True)
    (folder / split / f"{split}_conversations.txt").write_text("".join(lines))


@pytest.fixture
def own(world, tmp_path):
    """A copy of the world, to be added to."""
    shutil.copytree(world, tmp_path / "world")
    return tmp_path / "world"


def heard(drawn):
    return [word for word in ("good", "bad") if word in words(drawn)]


@pytest.mark.parametrize(
    ("task", "bad"),
    [
        ("story", ["bad"]),
        ("story", []),
        ("story_text", ["bad"]),
        ("story_text", ["", ""]),
        ("story_pair", []),
        ("published_vist", []),
        ("talk", [("bad", True)]),
        ("talk", [("bad", False), ("", False)]),
        ("talk_text", [("bad", False), ("", True)]),
        ("talk_text", []),
        ("published_mmdialog", [("bad", True)]),
        ("published_mmdialog", [("", True), ("bad", True)]),
    ],
)
def test_a_row_that_gives_nothing_to_learn_is_passed_over_and_counted(own, task, bad):
    kind = TASKS[task][0]
    good = ["good", "good"] if kind == "vist" else [("good", True), ("good", True)]
    write(own, kind, "some", [good, bad, good])
    draw = Mixture(own, {task: 6}, "some", max_bad_share=0.5)
    assert [heard(one) for one in draw(0)] == [["good"]] * 6
    assert draw.rows[kind].count.bad >= 2 and kind in draw.rows[kind].count.first[0]
    # What stands in for it is a matter of the index alone.
    again = Mixture(own, {task: 6}, "some", max_bad_share=0.5)
    again(1)
    assert [words(one) for one in again(0)] == [words(one) for one in draw(0)]


def test_too_many_of_them_stop_the_run(own):
    write(own, "vist", "some", [["one step"], ["another"], ["good", "good"]])
    with pytest.raises(
        TooManyBadRows, match=r"(?s)2 of the \d+ rows .* 1\.00% may .*begins '(one step|another)': a story needs two"
    ):
        Mixture(own, {"story": 9}, "some")(0)


def test_without_any_good_row_the_task_is_named(own):
    write(own, "vist", "some", [["one step"]])
    with pytest.raises(ValueError, match="no row of vist gives anything to learn for the task story"):
        Mixture(own, {"story": 1}, "some", max_bad_share=0.9)(0)
    write(own, "vist", "none", [])
    with pytest.raises(ValueError, match="vist: there are no rows in the split none"):
        Mixture(own, {"story": 1}, "none")


@pytest.fixture
def long_story(own):
    write(own, "vist", "some", [["good", "good"], ["bad " * 300, "bad"], ["good", "good"]])
    return own


def test_a_row_longer_than_the_context_is_passed_over_and_counted(long_story, tiny_processor):
    encode, context = tiny_processor.training_batch, 128
    draw = Mixture(long_story, {"story_text": 6}, "some", max_bad_share=0.5, encode=encode, context=context)
    drawn, batch = draw.batch(0)
    assert [heard(one) for one in drawn] == [["good"]] * 6
    assert batch["input_ids"].shape[1] <= context
    assert torch.equal(batch["input_ids"], encode([one.item for one in drawn])["input_ids"])
    assert draw.rows["vist"].count.bad >= 2 and "context holds 128" in draw.rows["vist"].count.first[0]
    for exact in (batch["input_ids"].shape[1], batch["input_ids"].shape[1] - 1):
        draw = Mixture(long_story, {"story_text": 6}, "some", max_bad_share=0.5, encode=encode, context=exact)
        assert draw.batch(0)[1]["input_ids"].shape[1] <= exact


def test_a_row_that_cannot_be_encoded_is_passed_over_and_counted(long_story, tiny_processor):
    def encode(items):
        if any("bad" in str(item) for item in items):
            raise ValueError("the chat template does not take it")
        return tiny_processor.training_batch(items)

    draw = Mixture(long_story, {"story_text": 6}, "some", max_bad_share=0.5, encode=encode)
    assert [heard(one) for one in draw.batch(0)[0]] == [["good"]] * 6
    assert draw.rows["vist"].count.bad >= 2 and "chat template" in draw.rows["vist"].count.first[0]


def test_an_encoder_that_takes_no_batch_is_no_fault_of_the_rows(long_story, tiny_processor):
    def encode(items):
        if len(items) > 1:
            raise ValueError("one at a time")
        return tiny_processor.training_batch(items)

    with pytest.raises(ValueError, match="one at a time"):
        Mixture(long_story, {"story_text": 6}, "some", max_bad_share=0.5, encode=encode).batch(0)


def test_questions_fit_the_context_too(long_story, tiny_processor):
    settings = {"max_bad_share": 0.5, "encode": tiny_processor.training_batch, "context": 128}
    questions = Mixture(long_story, {"story": 1}, "some", **settings).questions(4)
    assert len(questions) == 4 and all("bad" not in str(question) for question in questions)


def test_chats_may_come_as_llava_s_conversations(tmp_path):
    (tmp_path / "chat").mkdir()
    turns = [{"from": "human", "value": "Who is it?"}, {"from": "gpt", "value": "A fox."}]
    (tmp_path / "chat/train.json").write_text(json.dumps([{"id": "1", "conversations": turns}]))
    (drawn,) = Mixture(tmp_path, {"chat": 1}, layouts={"chat": "chat-llava"})(0)
    assert "Who is it?" in words(drawn) and "A fox." in words(drawn)
