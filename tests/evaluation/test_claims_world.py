"""The small world of the claims: what its stories tell, and what they leave to earlier pictures and words."""

import pytest

from minigpt5.evaluation.claims.world import (
    CAPTIONS,
    COLOURS,
    DESCRIPTION_MARK,
    FINALS,
    KINDS,
    LOOKS,
    NEXT,
    PLACES,
    SIZE,
    TASKS,
    TURN,
    captions,
    final,
    picture,
    questions,
    stories,
    story_lesson,
    talk_lesson,
)
from minigpt5.evaluation.claims.world import sample_talk as talk_of
from minigpt5.storyworld.language import imagine, plain_caption, read
from minigpt5.storyworld.scene import split_rng


def test_the_share_of_stories_that_leave_out_is_exact():
    for share in (0.0, 0.5, 1.0):
        assert sum(story.leaves_out for story in stories("test", 200, share)) == 200 * share
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        stories("test", 2, 1.5)


def test_what_the_last_sentence_leaves_out_is_carried_by_one_source_each():
    """The colour by pictures alone, the place by the words before alone, time and side by the sentence itself."""
    for story in stories("test", 60, 1.0):
        said, last, before = [read(step.text) for step in story.steps], story.steps[-1].scene, story.steps[:-1]
        assert all(mention.colour is None for reading in said for mention in reading.mentions)
        assert {step.scene.hero for step in story.steps} == {last.hero}
        assert said[2].place == last.place and said[3].place is None and not said[3].mentions
        assert last.place not in {step.scene.place for step in before}
        assert said[3].time == last.time
        assert any(word in story.steps[3].text for word in ("left", "middle", "centre", "right"))


def test_a_last_sentence_that_tells_all_needs_nothing_before_it():
    for story in stories("test", 60, 0.0):
        told, last = imagine(story.steps[-1].text), story.steps[-1].scene
        assert told is not None
        assert (told.hero, told.side, told.place, told.time) == (last.hero, last.side, last.place, last.time)


def test_no_picture_that_is_asked_for_was_learnt_from():
    asked, learnt = ({scene for _, scene in captions(split, 300)} for split in ("test", "train"))
    assert not asked & learnt
    assert max(scene.decor for scene in learnt) < LOOKS <= min(scene.decor for scene in asked)
    for scene in asked:
        assert scene.hero.kind in KINDS and scene.hero.colour in COLOURS and scene.place in PLACES
    assert picture(next(iter(asked))).size == (SIZE, SIZE)


@pytest.mark.parametrize("task", TASKS)
def test_every_group_has_equally_many_questions(task):
    asked = questions(task, "test", 4)
    sizes = [sum(question.group == group for question in asked) for group in range(4)]
    assert sizes == [{"every step": 4, NEXT: 3, TURN: 3}.get(task, 1)] * 4
    with pytest.raises(ValueError, match="task must be one of captions"):
        questions("none", "test", 1)


def test_contexts_hold_what_they_say():
    for context, texts, pictures in (("no", 0, 0), ("text", 3, 0), ("image", 0, 3), ("image-text", 3, 3)):
        question = questions(final(context, 1.0), "test", 1)[0]
        kinds = [part["type"] for part in question.messages[0]["content"]]
        assert (kinds.count("text") - 1, kinds.count("image")) == (texts, pictures)
        assert question.messages[0]["content"][-1]["text"].endswith(question.sentence)
    assert len(FINALS) == 12 and questions(CAPTIONS, "test", 1)[0].sentence


def test_a_picture_is_learnt_as_vokens_as_words_or_not_at_all():
    story = stories("train", 1, 0.0)[0]
    for paints in ("vokens", "words", "nothing"):
        lessons = [story_lesson(story, split_rng("train", seed), paints) for seed in range(20)]
        replies = [lesson.messages[-1]["content"] for lesson in lessons]
        painted = [any(part["type"] == "image" for part in reply) for reply in replies]
        described = [any(DESCRIPTION_MARK in part.get("text", "") for part in reply) for reply in replies]
        assert (all(painted), any(painted)) == ((paints == "vokens",) * 2)
        assert (all(described), any(described)) == ((paints == "words",) * 2)
        plain = {plain_caption(step.scene) for step in story.steps}
        assert all((lesson.plain in plain) == (paints == "vokens") for lesson in lessons)


def test_a_turn_is_learnt_in_the_light_of_those_before_it():
    talk = talk_of(split_rng("train", 0))
    for seed in range(12):
        lesson = talk_lesson(talk, split_rng("train", seed), "vokens")
        roles = [message["role"] for message in lesson.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
        turn = talk[len(roles) - 1]
        reply = lesson.messages[-1]["content"]
        assert reply[0]["text"] == turn.text and (len(reply) == 2) == (turn.scene is not None)
