"""Stories of an engine, which go on from any page in other words."""

import pytest

from minigpt5.service.engine import CancelledError, Engine
from minigpt5.studio.telling import tell

OPENING = "A red fox wakes up in the forest."


@pytest.fixture
def engine(pipe):
    engine = Engine(pipe)
    yield engine
    engine.close(drain=False)


@pytest.fixture
def asked(engine, monkeypatch):
    """What the engine is asked, as texts and None for pictures, with the seed."""
    asked, submit = [], engine.submit

    def recorded(prompt, **options):
        parts = prompt[-1]["content"]
        asked.append(([part.get("text") for part in parts], options["seed"]))
        return submit(prompt, **options)

    monkeypatch.setattr(engine, "submit", recorded)
    return asked


def test_a_story_reads_all_before_it_and_goes_on_in_other_words(engine, asked, pictures):
    steps = list(tell(engine, [], OPENING, 3, seed=7, image=pictures[0], image_mode="always"))
    assert [step.index for step in steps] == [1, 2, 3] and steps[0].text == OPENING
    assert asked == [
        ([None, f"Draw this: {OPENING}"], 7),
        ([OPENING, None, "What happens next?"], 8),
        ([OPENING, None, steps[1].text, None, "What happens next?"], 9),
    ]
    asked.clear()
    changed = list(tell(engine, steps[:1], "A cat sits.", 3, seed=7, image_mode="always"))
    assert changed[0].text == "A cat sits." and [step.index for step in changed] == [2, 3]
    assert asked == [
        ([OPENING, None, "Draw this: A cat sits."], 8),
        ([OPENING, None, "A cat sits.", None, "What happens next?"], 9),
    ]


def test_a_step_without_a_picture_ends_the_story(engine, monkeypatch):
    genuine = Engine.submit

    def ends(engine, prompt, image_mode, **options):
        return genuine(engine, prompt, image_mode="never" if image_mode == "auto" else image_mode, **options)

    monkeypatch.setattr(Engine, "submit", ends)
    opening, end = tell(engine, [], OPENING, 4, seed=7)
    assert opening.text == OPENING and opening.image is not None
    assert end.index == 2 and end.text and end.image is None
    # Told on from there in other words, which are painted.
    changed, end = tell(engine, [opening], "A cat sits.", 4, seed=7)
    assert (changed.index, changed.text) == (2, "A cat sits.") and changed.image is not None
    assert end.index == 3 and end.image is None


def test_what_cannot_be_told_is_said_and_a_page_that_is_given_up_ends_the_story(engine, held):
    for told, sentence in (([], None), ([], " ")):
        with pytest.raises(ValueError, match="the sentence is empty"):
            next(tell(engine, told, sentence, 3, seed=0))
    story = tell(engine, [], OPENING, 3, 0, None, lambda reply: (reply.cancel(), held.set()))
    with pytest.raises(CancelledError):
        next(story)
