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
    steps = list(tell(engine, [], OPENING, 3, seed=7, image=pictures[0]))
    assert [step.index for step in steps] == [1, 2, 3] and steps[0].text == OPENING
    assert asked == [
        ([None, f"Draw this: {OPENING}"], 7),
        ([OPENING, None, "What happens next?"], 8),
        ([OPENING, None, steps[1].text, None, "What happens next?"], 9),
    ]
    asked.clear()
    changed = list(tell(engine, steps[:1], "A cat sits.", 3, seed=7))
    assert changed[0].text == "A cat sits." and [step.index for step in changed] == [2, 3]
    assert asked == [
        ([OPENING, None, "Draw this: A cat sits."], 8),
        ([OPENING, None, "A cat sits.", None, "What happens next?"], 9),
    ]


def test_what_cannot_be_told_is_said_and_a_page_that_is_given_up_ends_the_story(engine, held):
    for told, sentence in (([], None), ([], " ")):
        with pytest.raises(ValueError, match="the sentence is empty"):
            next(tell(engine, told, sentence, 3, seed=0))
    story = tell(engine, [], OPENING, 3, 0, None, lambda reply: (reply.cancel(), held.set()))
    with pytest.raises(CancelledError):
        next(story)
