"""Stories and talks whose words agree with their frames."""

import random
from itertools import pairwise

import pytest

from minigpt5.storyworld.language import TIME_WORDS, WORDINGS, describes, read, split_words
from minigpt5.storyworld.stories import MOVES, OPENINGS, is_sound, sample_story, sample_talk

SEEDS = range(300)


def stories(**options):
    return [sample_story(random.Random(seed), **options) for seed in SEEDS]


@pytest.mark.parametrize("wording", WORDINGS)
def test_texts_agree_with_their_frames(wording):
    for story in stories(wording=wording):
        assert len(story.steps) == 5
        for step in story.steps:
            reading, scene = read(step.text), step.scene
            assert reading.place == scene.place, step
            assert reading.time in (None, scene.time), step
            assert {mention.kind for mention in reading.mentions} <= {who.kind for who in scene.characters}, step
        ending = read(story.ending)
        assert ending.place in (None, scene.place) and {"end", "ends"} & set(split_words(story.ending))
        assert {mention.kind for mention in ending.mentions} in (set(), {who.kind for who in scene.characters})


def test_sentences_of_stories_are_sound_and_broken_ones_are_not():
    told = [text for wording in WORDINGS for story in stories(wording=wording) for text in _texts(story)]
    assert sum(map(is_sound, told)) / len(told) > 0.995
    for text in ("Ends among the trees.", "Both ofLL walk to the sea.", "Then the sun is into the forest.", "It", ""):
        assert not is_sound(text), text


def _texts(story):
    return [*(step.text for step in story.steps), story.ending]


def test_the_hero_stays_the_same_to_the_end():
    assert all(len({step.scene.hero for step in story.steps}) == 1 for story in stories())


@pytest.mark.parametrize("told", [True, False])
def test_the_hero_s_colour_is_told_in_the_first_sentence_or_never(told):
    for story in stories(colour_told=told):
        colour = story.steps[0].scene.hero.colour
        named = [split_words(step.text).count(colour) for step in story.steps]
        assert named == [int(told), 0, 0, 0, 0], story


def test_nothing_is_told_twice_and_nobody_leaves():
    for story in stories():
        scenes = [step.scene for step in story.steps]
        changes = list(pairwise(scenes))
        travels = [after.place for before, after in changes if after.place != before.place]
        assert len({scenes[0].place, *travels}) == 1 + len(travels)
        times = [after.time for before, after in changes if after.time != before.time]
        assert len(set(times)) == len(times)
        for before, after in changes:
            assert before.companion is None or after.companion == before.companion


def test_stories_are_of_many_plots():
    told = {tuple(step.scene.place + step.scene.time for step in story.steps) for story in stories()}
    assert len(told) > 150


def test_a_new_companion_is_named_with_its_colour():
    for story in stories():
        for before, after in zip(story.steps, story.steps[1:], strict=False):
            if after.scene.companion and not before.scene.companion:
                assert after.scene.companion.colour in split_words(after.text)


def test_a_change_of_time_is_told():
    for story in stories():
        for before, after in zip(story.steps, story.steps[1:], strict=False):
            if after.scene.time != before.scene.time:
                assert set(TIME_WORDS[after.scene.time]) & set(split_words(after.text)), after


def test_fresh_wording_is_not_training_wording():
    assert not set(OPENINGS["train"]) & set(OPENINGS["fresh"])
    for move, sentences in MOVES["train"].items():
        assert not set(sentences) & set(MOVES["fresh"][move]), move


def test_talks_are_eight_turns_whose_answers_are_right():
    for seed in SEEDS:
        talk = sample_talk(random.Random(seed))
        first, last = [turn.scene for turn in talk if turn.scene]
        assert len(talk) == 8 and talk[-1].scene == last
        told = talk[1].text if talk[0].scene else talk[0].text.removeprefix("Draw this: ")
        assert describes(told, first)
        assert read(talk[3].text).place == first.place
        assert first.hero.colour in talk[5].text
        assert last.time != first.time and last.slots == first.slots and last.place == first.place
        assert read(talk[6].text).time == read(talk[7].text).time == last.time
