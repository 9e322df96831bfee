"""Replies in batches: each item once, and the same in whatever company."""

import pytest

from minigpt5.evaluation import generation
from minigpt5.evaluation.generation import batches, generate
from minigpt5.evaluation.items import alignment_items, dialogue_items, story_items
from minigpt5.evaluation.replies import ReplyFolder


@pytest.fixture
def items(data):
    return story_items(data / "vist", "validation", 2, tasks=("every step",))


def folder(path):
    replies = ReplyFolder(path)
    replies.claim({})
    return replies


def kept(replies, items):
    return [(reply.text, reply.pictures[0].tobytes()) for reply in (replies.read(item.id) for item in items)]


def test_each_item_is_asked_once(items, echo, tmp_path):
    replies = folder(tmp_path)
    assert generate(echo, items, replies, batch_size=4, num_inference_steps=3) == 10
    assert [len(prompts) for prompts, _, _ in echo.calls] == [4, 4, 2]
    assert {mode for _, mode, _ in echo.calls} == {"always"} and echo.calls[0][2] == {"num_inference_steps": 3}
    assert [replies.read(item.id).text for item in items] == [item.sentence for item in items]
    assert generate(echo, items, replies, batch_size=4) == 0 and len(echo.calls) == 3


def test_a_run_that_was_stopped_makes_only_what_is_missing_and_the_same(items, echo, tmp_path):
    whole, parts = folder(tmp_path / "whole"), folder(tmp_path / "parts")
    generate(echo, items, whole, batch_size=10)
    generate(echo, items[3:5], parts, batch_size=1)
    assert generate(echo, items, parts, batch_size=3) == 8
    assert kept(whole, items) == kept(parts, items)
    other = folder(tmp_path / "other")
    generate(echo, items, other, batch_size=10, seed=1)
    assert not set(kept(whole, items)) & set(kept(other, items))


def test_processes_share_the_items_and_make_the_same(items, echo, tmp_path, monkeypatch):
    alone, shared = folder(tmp_path / "alone"), folder(tmp_path / "shared")
    generate(echo, items, alone)
    made = []
    for index in range(3):
        monkeypatch.setattr(generation, "shard", lambda items, index=index: items[index::3])
        made.append(generate(echo, items, shared))
    assert made == [4, 3, 3] and kept(alone, items) == kept(shared, items)


def test_a_batch_has_one_image_mode_and_the_longest_come_first(data, items):
    pairs = alignment_items(data / "cc3m", "validation")
    talks = dialogue_items(data / "mmdialog", "validation")
    mixed = list(batches([*pairs, *talks, *items], 5))
    assert all(len({item.image_mode for item in batch}) == 1 for batch in mixed)
    assert sorted(item.id for batch in mixed for item in batch) == sorted(item.id for item in [*pairs, *talks, *items])
    shown = [len(item.context) for batch in batches(items, 5) for item in batch]
    assert shown == sorted(shown, reverse=True)


def test_the_pipeline_paints_the_same_alone_and_in_a_batch(tiny_pipe, items, tmp_path):
    one, many = folder(tmp_path / "one"), folder(tmp_path / "many")
    generate(tiny_pipe, items[:3], one, batch_size=1)
    generate(tiny_pipe, items[:3], many, batch_size=3)
    for item in items[:3]:
        ours, theirs = one.read(item.id), many.read(item.id)
        pairs = zip(ours.pictures[0].tobytes(), theirs.pictures[0].tobytes(), strict=True)
        assert ours.text == theirs.text and max(abs(a - b) for a, b in pairs) <= 1
