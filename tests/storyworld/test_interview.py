"""Whoever knows all is marked right in all; whoever answers other questions is not."""

import random

import pytest

from minigpt5.storyworld.changes import changed
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.interview import Reply, answerer, examine_tellings, interview, mark_turns
from minigpt5.storyworld.judge import load_judge
from minigpt5.storyworld.questions import ASKED
from minigpt5.storyworld.scene import sample_scene
from minigpt5.storyworld.tasks import fresh_items, turns
from minigpt5.storyworld.wishes import outside

COUNT = 30


def oracle(items):
    return [Reply(item.text, draw(item.scene) if item.scene else None) for item in items]


def confused(items):
    """The right replies, each to another question."""
    replies = oracle(items)
    return replies[1:] + replies[:1]


def silent(items):
    return [Reply("", None) for _ in items]


def shares(answer):
    return {name: sum(marks) / len(marks) for name, marks in interview(answer, COUNT).items()}


def test_an_oracle_is_right_in_all():
    figures = shares(oracle)
    assert set(ASKED) < figures.keys() and min(figures.values()) == 1, figures


def test_replies_to_other_questions_are_near_chance():
    figures = shares(confused)
    # These ask for the same whatever the question.
    for name in ("outside", "inside"):
        assert figures.pop(name) == 1
    coins = {name: figures.pop(name) for name in ("time", "yes or no", "which", "count", "side", "ground")}
    assert max(coins.values()) < 0.75 and max(figures.values()) < 0.45, (coins, figures)


def test_silence_is_wrong_everywhere():
    assert set(shares(silent).values()) == {0.0, 0.5}
    assert shares(silent)["inside"] == 0.5  # questions want no picture, and get none


def test_a_pipeline_answers_every_item(pipe):
    items = [*fresh_items(changed, 2), *fresh_items(outside, 1), *fresh_items(turns, 2)]
    replies = answerer(pipe, batch_size=2)(items)
    assert len(replies) == 5 and all(isinstance(reply.text, str) for reply in replies)


def test_a_picture_where_words_are_asked_for_is_wrong():
    items = list(fresh_items(turns, COUNT))
    asked_for_words = [item.scene is None for item in items]

    def painter(items):
        return [
            reply._replace(picture=reply.picture or draw(sample_scene(random.Random(0)))) for reply in oracle(items)
        ]

    assert [not mark for mark in mark_turns(items, painter, load_judge())] == asked_for_words
    assert 5 < sum(asked_for_words) < COUNT - 5


def test_tellings_of_a_random_model_are_marked(pipe):
    figures = examine_tellings(pipe, 2)
    assert len(figures["differ"]) == 2 and len(figures["places"]) == len(figures["times"]) == 4


@pytest.mark.parametrize(
    ("texts", "sound", "places", "times"),
    [
        (
            ["A fox in the city.", "It goes to the sea.", "Then night by the sea.", "It goes to the woods."],
            [True, False, True],
            True,
            True,
        ),
        (["A fox in the city.", "It goes to the sea.", "It goes into the town."], [True, True], False, True),
        (
            ["A fox in the city.", "It is night in the city.", "The sun comes up in the town.", "It dark.", "Day."],
            [True, True, False, False],
            True,
            False,
        ),
    ],
)
def test_what_comes_twice_or_is_no_sentence_is_found(monkeypatch, texts, sound, places, times):
    from minigpt5.storyworld import interview as module

    told = [(text, draw(module.sample_stories(1, True)[0].steps[0].scene)) for text in texts]
    monkeypatch.setattr(module, "run_stories", lambda pipe, openings, **options: [told for _ in openings])
    figures = examine_tellings(None, 2)
    assert figures["places"] == [places] * 4 and figures["times"] == [times] * 4
    assert figures["differ"] == [False] * 2 and not figures["companion"]
    assert figures["sound"] == sound * 4


def test_another_telling_has_another_course(monkeypatch):
    from minigpt5.storyworld import interview as module

    picture = draw(module.sample_stories(1)[0].steps[0].scene)
    first, other = "The fox goes to the sea.", iter(["Soon it goes to the beach.", "It goes to the town."])
    for differs in (False, True):
        told = iter([first, next(other)])
        monkeypatch.setattr(module, "run_stories", lambda *_, told=told, **__: [[(next(told), picture)]])
        assert examine_tellings(None, 1)["differ"] == [differs]


@pytest.mark.parametrize(
    ("friend", "another"), [("a white dragon", None), ("a pink {other}", True), ("a red {hero}", False)]
)
def test_whoever_is_met_is_another_animal(monkeypatch, friend, another):
    from minigpt5.storyworld import interview as module

    def met(opening):
        hero = opening.scene.hero.kind
        text = f"It meets {friend} by the sea.".format(hero=hero, other="cat" if hero != "cat" else "fox")
        return [(text, draw(opening.scene)) for text in (opening.text, text)]

    monkeypatch.setattr(module, "run_stories", lambda pipe, stories, **_: [met(story.steps[0]) for story in stories])
    figures = examine_tellings(None, 2)
    assert figures["another"] == ([] if another is None else [another] * 4)
    # None of the pictures shows it.
    assert figures["companion"] == ([] if another is None else [False] * 4)
