"""Replies in batches: each item once, and the same in whatever company."""

import dataclasses
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from minigpt5.data.tolerant import TooManyBadRows
from minigpt5.evaluation import generation, systems
from minigpt5.evaluation.generation import batches, check_pictures, generate
from minigpt5.evaluation.items import alignment_items, dialogue_items, story_items
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.evaluation.systems import AskingSettings
from minigpt5.utils.actors import ActorSettings


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
    assert generate(lambda: echo, items, replies, batch_size=4, num_inference_steps=3) == 10
    assert [len(prompts) for prompts, _, _ in echo.calls] == [4, 4, 2]
    assert {mode for _, mode, _ in echo.calls} == {"always"} and echo.calls[0][2] == {"num_inference_steps": 3}
    assert [replies.read(item.id).text for item in items] == [item.sentence for item in items]
    assert generate(lambda: echo, items, replies, batch_size=4) == 0 and len(echo.calls) == 3


def test_a_run_that_was_stopped_makes_only_what_is_missing_and_the_same(items, echo, tmp_path):
    whole, parts = folder(tmp_path / "whole"), folder(tmp_path / "parts")
    generate(lambda: echo, items, whole, batch_size=10)
    generate(lambda: echo, items[3:5], parts, batch_size=1)
    assert generate(lambda: echo, items, parts, batch_size=3) == 8
    assert kept(whole, items) == kept(parts, items)
    other = folder(tmp_path / "other")
    generate(lambda: echo, items, other, batch_size=10, seed=1)
    assert not set(kept(whole, items)) & set(kept(other, items))


def test_processes_share_the_items_and_make_the_same(items, echo, tmp_path, monkeypatch):
    alone, shared = folder(tmp_path / "alone"), folder(tmp_path / "shared")
    generate(lambda: echo, items, alone)
    made = []
    for index in range(3):
        monkeypatch.setattr(generation, "shard", lambda items, index=index: items[index::3])
        made.append(generate(lambda: echo, items, shared))
    assert made == [4, 3, 3] and kept(alone, items) == kept(shared, items)


def test_what_actors_reply_in_any_order_is_the_same(items, echo, tmp_path, monkeypatch):
    alone, shared, seen = folder(tmp_path / "alone"), folder(tmp_path / "shared"), []
    generate(lambda: echo, items, alone)

    def far_away(work, tasks, settings):
        seen.append(settings)
        yield from (pickle.loads(pickle.dumps(work(task))) for task in reversed(tasks))

    monkeypatch.setattr(generation, "map_in_actors", far_away)
    actors = ActorSettings(ray=True, actors=2)
    assert generate(lambda: echo, items, shared, batch_size=3, actors=actors) == 10
    assert seen == [actors] and kept(alone, items) == kept(shared, items)


def test_a_system_is_opened_where_something_is_left_to_ask(items, echo, tmp_path):
    replies, opened = folder(tmp_path), []

    def load():
        opened.append(echo)
        return echo

    for count in (10, 0):
        assert generate(load, items, replies, batch_size=4) == count and opened == [echo]


def test_one_process_shares_among_actors(monkeypatch, tmp_path):
    monkeypatch.setattr(systems, "process_state", lambda: SimpleNamespace(num_processes=2))
    with pytest.raises(ValueError, match=r"^ray: one process shares the work among actors, and there are 2 processes"):
        AskingSettings(out=tmp_path, ray=True)
    # Replies of a driver without a GPU are those of its actors' GPUs.
    assert systems.machine(ActorSettings(ray=True, gpus_per_actor=0.5))["device"] == "cuda"


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
    generate(lambda: tiny_pipe, items[:3], one, batch_size=1)
    generate(lambda: tiny_pipe, items[:3], many, batch_size=3)
    for item in items[:3]:
        ours, theirs = one.read(item.id), many.read(item.id)
        pairs = zip(ours.pictures[0].tobytes(), theirs.pictures[0].tobytes(), strict=True)
        assert ours.text == theirs.text and max(abs(a - b) for a, b in pairs) <= 1


@pytest.fixture
def spoilt(data, tmp_path):
    """Stories of which the second step of the first shows a broken picture, and the last of the second none."""
    shutil.copytree(data / "vist", tmp_path / "vist")
    items = story_items(tmp_path / "vist", "validation", 2, tasks=("every step",))
    Path(items[1].picture).write_text("<html>")
    Path(items[9].picture).unlink()
    return items


def test_items_without_their_pictures_are_passed_over_and_noted(spoilt, echo, tmp_path):
    replies = folder(tmp_path / "out")
    # The broken one is the context of three more.
    assert generate(lambda: echo, spoilt, replies, batch_size=4, max_bad_share=0.5) == 5
    refused = {item.id: replies.refusal(item.id) for item in spoilt if item.id not in replies}
    assert len(refused) == 5 and all(
        "broken" in told or "not a picture" in told or "no such file" in told for told in refused.values()
    )
    # After a repair they are asked again.
    shutil.copy(spoilt[0].picture, spoilt[1].picture)
    assert generate(lambda: echo, spoilt, replies, batch_size=4, max_bad_share=0.5) == 4
    assert replies.refusal(spoilt[1].id) is None and replies.refusal(spoilt[9].id)


def test_too_many_stop_the_run_in_a_line_again_and_again(spoilt, echo, tmp_path):
    for _ in range(3):
        with pytest.raises(TooManyBadRows, match=r"of the \d+ items cannot be used, and 1\.00% may"):
            generate(lambda: echo, spoilt, folder(tmp_path / "out"), batch_size=4)
    with pytest.raises(TooManyBadRows, match="no such file"):
        check_pictures(spoilt, 0.0)


def test_replies_that_are_there_count_when_a_run_goes_on(spoilt, echo, tmp_path):
    many = [dataclasses.replace(spoilt[0], id=f"{number:06}") for number in range(400)]
    replies = folder(tmp_path / "out")
    for _ in range(2):
        generate(lambda: echo, [*many, *spoilt[5:], spoilt[1]], replies, batch_size=50)
        assert [item.id for item in spoilt if replies.refusal(item.id)] == [spoilt[1].id, spoilt[9].id]


def test_an_item_that_is_too_long_is_passed_over_and_its_batch_is_not(tiny_pipe, items, tmp_path):
    prompt = [{"role": "user", "content": [{"type": "text", "text": "What happens next? " * 200}]}]
    long = dataclasses.replace(items[1], id="long", unopened=prompt)
    alone, mixed = folder(tmp_path / "alone"), folder(tmp_path / "mixed")
    generate(lambda: tiny_pipe, items[:2], alone, batch_size=2)
    assert generate(lambda: tiny_pipe, [*items[:2], long], mixed, batch_size=3) == 2
    assert "context holds" in mixed.refusal("long")
    for item in items[:2]:
        pairs = zip(*(of.read(item.id).pictures[0].tobytes() for of in (alone, mixed)), strict=True)
        assert alone.read(item.id).text == mixed.read(item.id).text and max(abs(a - b) for a, b in pairs) <= 1


def test_an_error_that_is_no_refusal_ends_the_run(items, tmp_path):
    def broken(prompts, **options):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        generate(lambda: broken, items, folder(tmp_path))
