"""What is asked and what is to be replied."""

import random

import pytest

from minigpt5.data.tasks import caption_task, continue_story, dialogue_task, draw_task, illustrate, story_tasks

TEXTS = ["one", "two", "three", "four", "five"]
PICTURES = [f"picture {i}" for i in range(1, 6)]


def parts(message, kind):
    return [part[kind] for part in message["content"] if part["type"] == kind]


def test_a_caption_is_the_reply_to_its_picture():
    question, answer = caption_task("a fox", "picture", random.Random(0))
    assert parts(question, "image") == ["picture"] and parts(answer, "text") == ["a fox"]
    assert (question["role"], answer["role"]) == ("user", "assistant")


def test_a_picture_is_the_reply_to_its_caption():
    question, answer = draw_task("a fox", "picture", random.Random(0))
    assert parts(question, "text")[0].endswith(": a fox")
    assert answer["content"] == [{"type": "image", "image": "picture"}]


def test_story_tasks_never_show_what_is_to_be_painted():
    for seed in range(200):
        question, answer = story_tasks(TEXTS, PICTURES, random.Random(seed))
        assert not set(parts(answer, "image")) & set(parts(question, "image"))
        assert not set(parts(answer, "text")) & set(parts(question, "text"))


def test_story_tasks_without_painting_reply_with_text_alone():
    for seed in range(100):
        _, answer = story_tasks(TEXTS, PICTURES, random.Random(seed), paint=False)
        assert len(parts(answer, "text")) == 1 and not parts(answer, "image")


def test_a_story_goes_on_from_texts_and_pictures_in_order():
    content = continue_story(TEXTS[:2], [PICTURES[0], None])
    shown = [part.get("text", part.get("image")) for part in content]
    assert shown == ["one", "picture 1", "two", "What happens next?"]
    assert illustrate(["one"], [None], "two")[-1] == {"type": "text", "text": "Draw this: two"}


@pytest.mark.parametrize("paint", [True, False])
def test_a_dialogue_ends_with_the_second_speaker(paint):
    for seed in range(20):
        messages = dialogue_task(TEXTS[:4], PICTURES[:4], random.Random(seed), paint=paint)
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
        assert bool(parts(messages[-1], "image")) == paint
