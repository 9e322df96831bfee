"""What stands behind the Studio's pages: turns that an engine answers."""

import numpy as np
import pytest
import torch

from minigpt5.service.engine import Engine, Limits
from minigpt5.studio.turns import Choices, Turn, answer, ask, messages


@pytest.fixture
def engine(pipe):
    engine = Engine(pipe)
    yield engine
    engine.close(drain=False)


def answered(engine, turns):
    for _ in answer(turns[-1], ask(engine, turns)):
        pass
    return turns[-1]


def words(reply):
    return [part if isinstance(part, str) else None for part in reply]


def test_a_turn_s_reply_is_the_pipeline_s_to_all_that_was_said(pipe, engine, pictures):
    first = Turn(
        "a cat", [pictures[0]], Choices(seed=3, num_inference_steps=4, guidance_scale=2.0, image_mode="always")
    )
    second = Turn("go on", choices=Choices(seed=5, temperature=1.5, image_mode="never"))
    answered(engine, [first])
    answered(engine, [first, second])
    chat = pipe.chat()
    generator = torch.Generator().manual_seed(3)
    alone = chat.reply(
        "a cat", pictures[0], num_inference_steps=4, guidance_scale=2.0, image_mode="always", generator=generator
    )
    assert words(first.reply) == words(alone.segments[0]) and None in words(first.reply)
    painted = [part for part in first.reply if not isinstance(part, str)]
    difference = np.abs(np.asarray(painted[0]).astype(int) - np.asarray(alone.images[0][0]))
    assert difference.max() <= 1
    # The picture that the first reply holds is read by the second.
    chat.messages = messages([first, second])[:-1]
    sampled = {"do_sample": True, "temperature": 1.5, "image_mode": "never"}
    assert words(second.reply) == chat.reply("go on", generator=torch.Generator().manual_seed(5), **sampled).segments[0]
    assert second.seed == 5 and [message["role"] for message in second.read] == ["user", "assistant", "user"]


def test_previews_stand_where_their_picture_will(engine):
    turn = Turn("a cat", choices=Choices(seed=0, num_inference_steps=8, image_mode="always"))
    comes = answer(turn, ask(engine, [turn]))
    shown = [[part for part in turn.reply if not isinstance(part, str)] for _ in comes]
    pictures = [one for one, *_ in filter(None, shown)]
    # Three previews and the picture itself, one at a time.
    assert len({id(picture) for picture in pictures}) == 4 and max(map(len, shown)) == 1
    differences = [np.abs(np.asarray(one).astype(int) - np.asarray(pictures[-1])).mean() for one in pictures]
    assert differences[-1] == 0 < min(differences[:3])


def test_a_turn_without_a_seed_gets_one_that_repeats_it(engine):
    turn = answered(engine, [Turn("a cat", choices=Choices(temperature=1.5, image_mode="never"))])
    assert turn.choices.seed is None
    again = answered(engine, [turn.again(choices=Choices(turn.seed, temperature=1.5, image_mode="never"))])
    assert again.reply == turn.reply and again.id != turn.id


def test_a_reply_that_is_given_up_ends_in_the_engine_too(engine, held):
    turn = Turn("a cat")
    reply = ask(engine, [turn])
    reply.cancel()
    held.set()
    assert list(answer(turn, reply)) == [None] and turn.note == "Stopped." and turn.reply == []
    # What was never answered is not read by what comes next.
    assert messages([turn, Turn("go on")]) == messages([Turn("go on")])


def test_who_looks_away_is_no_longer_waited_for(engine, held):
    turn = Turn("a cat")
    reply = ask(engine, [turn])
    waiting = answer(turn, reply)
    held.set()
    next(waiting)
    waiting.close()
    assert reply.cancelled


def test_a_failure_is_noted_in_words(pipe, monkeypatch):
    engine = Engine(pipe, Limits(timeout=0.001))
    turn = Turn("a cat")
    try:
        answered(engine, [turn])
    finally:
        engine.close()
    assert turn.note.startswith("The reply was not whole after")


def test_the_oldest_turns_are_forgotten_where_the_context_is_full(pipe, engine):
    long = " ".join(["the red fox sees a cat in the forest"] * 4)
    turns = [Turn(f"{number} {long}", reply=[long]) for number in range(9)]
    turn = answered(engine, [*turns, Turn("go on", choices=Choices(image_mode="never"))])
    kept = (len(turn.read) - 1) // 2
    assert 0 < kept < 9
    assert turn.read[0]["content"][0]["text"] == turns[-kept].text
    assert pipe.encode_prompt([list(turn.read)])["input_ids"].shape[1] < pipe.reader.context_length


def test_what_a_person_brings_is_checked(engine, pictures):
    with pytest.raises(ValueError, match="image mark"):
        ask(engine, [Turn("<ImageHere> and <ImageHere>")])
    with pytest.raises(ValueError, match="empty"):
        ask(engine, [Turn(" ")])
    turn = Turn("What is <ImageHere>?", [pictures[0]])
    assert [part["type"] for part in messages([turn])[0]["content"]] == ["text", "image", "text"]


def test_feedback_repeats_the_reply(engine, pictures):
    choices = Choices(num_inference_steps=3, temperature=1.5, image_mode="always")
    turn = answered(engine, [Turn("a cat", [pictures[0]], choices)])
    row = turn.feedback({"name": "tiny"}, "down", turn.corrected(" A dog. ", [pictures[1]]))
    assert row.id == turn.id and row.correction == ["A dog.", pictures[1]]
    again = engine.submit(row.messages, seed=row.seed, **row.settings).segments()
    assert words(again) == words(turn.reply) == words(row.reply)
    # Of a correction in words alone the pictures stay.
    assert turn.corrected("A dog.", [])[1:] == [part for part in turn.reply if not isinstance(part, str)]
