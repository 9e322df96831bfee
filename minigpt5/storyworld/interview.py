"""Interviews of a pipeline: fresh items are asked as a user would, and every reply is marked.

Each figure is a list with a mark an item, so that whoever prints it can say how sure it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from PIL import Image

from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.storyworld.changes import changed
from minigpt5.storyworld.examine import ask, run_stories, sample_stories
from minigpt5.storyworld.items import Item
from minigpt5.storyworld.judge import Judge, Verdict, load_judge
from minigpt5.storyworld.language import Mention, read
from minigpt5.storyworld.marks import MARKS, says_sorry
from minigpt5.storyworld.questions import ASKED, ground, question, refer
from minigpt5.storyworld.scene import Scene
from minigpt5.storyworld.stories import is_sound
from minigpt5.storyworld.tasks import ending, fresh_items, turns
from minigpt5.storyworld.wishes import outside, paint, paint_bare, paint_two

Marks = list[bool]


class Reply(NamedTuple):
    """The words of a reply, and its picture where it has one."""

    text: str
    picture: Image.Image | None


Answerer = Callable[[Sequence[Item]], list[Reply]]


def answerer(pipe: MiniGPT5Pipeline, batch_size: int = 50) -> Answerer:
    """Replies of a pipeline that itself decides whether to paint."""

    def reply(items: Sequence[Item]) -> list[Reply]:
        replies = ask(pipe, [item.messages()[:-1] for item in items], batch_size=batch_size, image_mode="auto")
        return [Reply(*pair) for pair in zip(*replies, strict=True)]

    return reply


def mark_words(items: Sequence[Item], replies: Sequence[Reply]) -> Marks:
    """Whether each reply says what the true one does, and paints nothing."""
    pairs = zip(items, replies, strict=True)
    return [reply.picture is None and MARKS[item.kind](reply.text, item.text) for item, reply in pairs]


def mark_pictures(
    items: Sequence[Item],
    replies: Sequence[Reply],
    judge: Judge,
    right: Callable[[Verdict, Scene], bool] = lambda verdict, scene: verdict.compare(scene)["all"],
) -> Marks:
    """Whether each reply's picture shows the true one's scene; a reply without one is wrong, and so is one of words."""
    pairs = list(zip(items, replies, strict=True))
    verdicts = iter(judge.read([reply.picture for item, reply in pairs if reply.picture and item.scene]))
    return [bool(reply.picture and item.scene and right(next(verdicts), item.scene)) for item, reply in pairs]


def mark_turns(items: Sequence[Item], answer: Answerer, judge: Judge) -> Marks:
    """Whether each reply to the last turn of a chat has the picture that is wished for, or the words and none."""
    replies = answer(items)
    painted = mark_pictures(items, replies, judge)
    return [
        right if item.scene else mark_words([item], [reply])[0]
        for item, reply, right in zip(items, replies, painted, strict=True)
    ]


def same_animals(verdict: Verdict, scene: Scene) -> bool:
    """Whether a picture shows just the animals of a scene, each in its colour, wherever they stand."""
    return set(verdict.characters) == set(scene.characters) and len(verdict.characters) == len(scene.characters)


def interview(answer: Answerer, count: int, judge: Judge | None = None) -> dict[str, Marks]:
    """All figures of questions, boxes, changes, wishes and what lies outside, `count` items each.

    Returns:
        Marks by figure. "question, rough" and "wish, rough" are of the same items as those without "rough", in the same
        order.
    """
    judge = judge or load_judge()
    figures: dict[str, Marks] = {}
    for kind, make in (ASKED | {"ground": ground, "refer": refer}).items():
        items = list(fresh_items(make, count))
        figures[kind] = mark_words(items, answer(items))

    items = list(fresh_items(changed, count))
    figures["change"] = mark_pictures(items, answer(items), judge)
    items = list(fresh_items(paint_two, count))
    figures["two animals"] = mark_pictures(items, answer(items), judge, same_animals)

    for name, make in (("question", question), ("wish", paint)):
        items = list(fresh_items(make, count))
        rough = [item.roughened(random.Random(f"rough/{i}"), "fresh") for i, item in enumerate(items)]
        for typed, these in ((name, items), (f"{name}, rough", rough)):
            replies = answer(these)
            painted = name == "wish"
            figures[typed] = mark_pictures(these, replies, judge) if painted else mark_words(these, replies)
            if typed == name:
                taken = [not says_sorry(reply.text) and bool(reply.picture) == painted for reply in replies]
                figures["inside"] = figures.get("inside", []) + taken

    items = list(fresh_items(paint_bare, count))
    figures["wish without a colour"] = mark_pictures(items, answer(items), judge)
    figures["last turn"] = mark_turns(list(fresh_items(turns, count)), answer, judge)

    items = list(fresh_items(outside, count))
    replies = answer(items)
    figures["outside"] = [says_sorry(reply.text) and reply.picture is None for reply in replies]
    figures["outside, why"] = mark_words(items, replies)
    items = list(fresh_items(ending, count))
    figures["ending"] = mark_words(items, answer(items))
    return figures


def examine_tellings(pipe: MiniGPT5Pipeline, count: int, judge: Judge | None = None) -> dict[str, Marks]:
    """Sampled stories, two of each opening with seeds of their own.

    Returns:
        "differ", whether the two differ in more than words: in who is met, where or when; of every sentence behind the
        first "sound", whether it is put together as StoryWorld's are; of every story "places", whether no place is come
        back to, "times", whether night falls and the sun rises at most once, and where somebody is met "another",
        whether it is an animal of another kind, and "companion", whether all pictures from then on show it, if it is
        not like the hero.
    """
    judge = judge or load_judge()
    openings = sample_stories(count)
    tellings = [run_stories(pipe, openings, seed=seed, do_sample=True) for seed in (1, 2)]
    figures: dict[str, Marks] = {
        "differ": [_course(one) != _course(other) for one, other in zip(*tellings, strict=True)],
        "sound": [is_sound(text) for telling in tellings for story in telling for text, _ in story[1:]],
        "places": [],
        "times": [],
        "another": [],
        "companion": [],
    }
    for opening, told in zip(openings * 2, [story for telling in tellings for story in telling], strict=True):
        readings = [read(text) for text, _ in told]
        figures["places"].append(_comes_once([reading.place for reading in readings]))
        times = [reading.time or ("day" if i == 0 else None) for i, reading in enumerate(readings)]
        # From day to night and from night to day: by day a story begins, and may be again.
        figures["times"].append(len(_runs(times)) <= 3)
        met = [
            (step, mention)
            for step, reading in enumerate(readings)
            for mention in reading.mentions
            if step and mention.colour
        ]
        if not met:
            continue
        (step, friend), hero = met[0], opening.steps[0].scene.hero
        figures["another"].append(friend.kind != hero.kind)
        # One that looks as the hero does cannot be told from it.
        if (friend.kind, friend.colour) != (hero.kind, hero.colour):
            verdicts = judge.read([picture for _, picture in told[step:]])
            figures["companion"].append(all(_shows(verdict, friend) for verdict in verdicts))
    return figures


def _course(told: Sequence[tuple[str, Any]]) -> list[tuple]:
    """What a story tells step by step: the place, the time, and who is new, whom it names with a colour."""
    readings = [read(text) for text, _ in told]
    return [(each.place, each.time, [who for who in each.mentions if who.colour]) for each in readings]


def _shows(verdict: Verdict, friend: Mention) -> bool:
    return any((who.kind, who.colour) == (friend.kind, friend.colour) for who in verdict.characters)


def _runs(told: Sequence[str | None]) -> list[str]:
    """What is told, once where the same is told several times in a row."""
    return [value for value, _ in groupby(value for value in told if value)]


def _comes_once(told: Sequence[str | None]) -> bool:
    return len(set(_runs(told))) == len(_runs(told))
