"""Batches drawn from several data sets by task."""

from collections import Counter

import pytest

from minigpt5.data import mixture
from minigpt5.data.mixture import TASKS, TEXT_TASKS, Mixture
from minigpt5.readers.prompts import Example
from minigpt5.storyworld.export import export_cc3m, export_mmdialog, export_vist


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Ten items of each layout."""
    root = tmp_path_factory.mktemp("world")
    for name, export in (("cc3m", export_cc3m), ("vist", export_vist), ("mmdialog", export_mmdialog)):
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
