import pytest

from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.examine import (
    ask,
    examine_captions,
    examine_next_step,
    examine_stories,
    fresh_captions,
    hero_kept,
    run_stories,
    sample_scenes,
    sample_stories,
    text_agrees,
)
from minigpt5.storyworld.judge import Verdict, judge_accuracy, load_judge
from minigpt5.storyworld.language import WORDINGS, describes
from minigpt5.storyworld.scene import Character, Scene

FOX, CAT = Character("fox", "red"), Character("cat", "blue")
VERDICT = Verdict({"left": FOX, "middle": None, "right": CAT}, "beach", "night")


@pytest.mark.parametrize(
    ("text", "agrees"),
    [
        ("It walks to the beach.", True),
        ("It walks to the city.", False),
        ("The fox meets a blue cat by the sea at night.", True),
        ("The fox meets a green cat by the sea.", False),
        ("The dog walks to the beach.", False),
        ("A new day begins on the beach.", False),
        ("Hello there.", False),
        ("", False),
    ],
)
def test_a_text_agrees_with_a_picture_that_shows_all_it_names(text, agrees):
    assert text_agrees(text, VERDICT) is agrees


def test_who_is_alone_is_not_several_and_stands_where_it_is_told():
    alone = Verdict({"left": FOX, "middle": None, "right": None}, "beach", "night")
    assert text_agrees("It goes to the left on the beach.", alone)
    assert not text_agrees("It goes to the right on the beach.", alone)
    assert not text_agrees("The fox meets the cat on the beach.", alone)
    assert not text_agrees("Together they walk to the beach.", alone)
    assert text_agrees("Together they walk to the beach.", VERDICT)


def test_the_hero_is_kept_in_its_kind_and_colour():
    assert hero_kept(VERDICT, FOX) and not hero_kept(VERDICT, Character("fox", "blue"))


def test_fresh_captions_say_all_and_are_worded_as_no_training_caption_is():
    scenes = sample_scenes(50)
    captions = fresh_captions(scenes)
    assert all(map(describes, captions, scenes))
    assert not set(captions) & set(fresh_captions(scenes, WORDINGS[0]))


def test_the_shipped_judge_reads_renders():
    scenes = sample_scenes(200, companion_share=0.5)
    accuracy = judge_accuracy(load_judge().read([draw(scene, 96) for scene in scenes]), scenes)
    assert min(accuracy.values()) >= 0.99


def test_a_judge_s_verdict_is_compared_attribute_by_attribute():
    scene = Scene(FOX, "left", "beach", "day", CAT)
    assert VERDICT.compare(scene) == {
        "kind": True,
        "colour": True,
        "side": True,
        "place": True,
        "time": False,
        "all": False,
    }


def test_every_question_gets_one_picture(pipe):
    chats = [[{"role": "user", "content": "Draw this: a fox."}]] * 3
    texts, pictures = ask(pipe, chats, batch_size=2)
    assert len(texts) == len(pictures) == 3


def test_stories_run_for_five_steps_from_their_openings(pipe):
    stories = [*sample_stories(1, True), *sample_stories(1, False)]
    told = run_stories(pipe, stories)
    assert [len(story) for story in told] == [5, 5]
    assert [story[0][0] for story in told] == [story.steps[0].text for story in stories]


def test_a_random_model_fails_the_examinations(pipe):
    assert examine_captions(pipe.reader, sample_scenes(4)) == 0
    assert examine_next_step(pipe, 4, True)["hero"] < 1
    assert examine_stories(pipe, 2)["hero_in_all"] == 0
