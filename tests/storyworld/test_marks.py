"""Replies are marked by what they mean."""

import random

import pytest

from minigpt5.storyworld.language import caption, plain_caption
from minigpt5.storyworld.marks import MARKS
from minigpt5.storyworld.questions import ASKED, UNTAUGHT
from minigpt5.storyworld.scene import sample_scene
from minigpt5.storyworld.tasks import TASKS, fresh_items

SEEDS = range(400)


@pytest.mark.parametrize("kind", MARKS)
def test_true_answers_are_marked_right_and_those_of_other_questions_hardly_ever(kind):
    make = (ASKED | UNTAUGHT | TASKS)[kind]
    asked = list(fresh_items(make, 200))
    assert all(MARKS[kind](item.text, item.text) for item in asked)
    shuffled = asked[1:] + asked[:1]
    right = sum(MARKS[kind](one.text, other.text) for one, other in zip(asked, shuffled, strict=True)) / 200
    chances = {"time": 0.5, "yes or no": 0.5, "which": 0.42, "count": 0.34, "side": 0.34, "ground": 0.35}
    chances |= {"outside": 0.34, "ending": 0.34}
    chance = chances.get(kind, 0.15)
    assert right < chance + 0.12
    assert not MARKS[kind]("", asked[0].text)


@pytest.mark.parametrize(
    ("kind", "reply", "truth", "right"),
    [
        ("animal", "It is a fox.", "A fox.", True),
        ("animal", "A fox and a dog.", "A fox.", False),
        ("colour", "It is red", "The fox is red.", True),
        ("colour", "The fox is red and blue.", "The fox is red.", False),
        ("place", "By the sea.", "It is on the beach.", True),
        ("time", "In the moonlight.", "It is night.", True),
        ("time", "It is daytime.", "It is day.", True),
        ("time", "It is nighttime.", "It is night.", True),
        ("place", "It stands by a cactus.", "It is in the desert.", True),
        ("yes or no", "Yes, it is.", "Yes.", True),
        ("yes or no", "Yes and no.", "Yes.", False),
        ("yes or no", "Yes it is, no doubt.", "Yes.", True),
        ("yes or no", "True.", "The fox is red: yes.", True),
        ("yes or no", "Not true.", "The fox is red: yes.", False),
        ("yes or no", "That is not true.", "The fox is red: no.", True),
        ("which", "Picture two.", "So the second picture.", True),
        ("which", "Picture 2 of 3.", "So the second picture.", True),
        ("which", "The second one.", "So the second picture.", True),
        ("count", "There are two animals: one fox and one dog.", "So two.", True),
        ("count", "There are two foxes and one dog.", "So one.", False),
        (
            "compare",
            "The place: first on the sand by the sea, then in the forest.",
            "First the beach, then the forest.",
            True,
        ),
        ("outside", "Sorry, I know no such thing.", "Sorry, I know no such animal.", True),
        ("outside", "Sorry, I know no such place.", "Sorry, I know no such colour.", False),
        ("outside", "Sorry, please.", "Sorry, I know no such colour.", False),
        ("outside", "Sorry, I cannot see that", "Sorry, I cannot see that.", True),
        ("outside", "Sorry, I see no picture.", "Sorry, I know no such animal.", False),
        ("outside", "Sorry, I know no such place.", "Sorry, I see no picture.", False),
        ("outside", "Sorry, I see no picture.", "Sorry, I see no picture.", True),
        ("outside", "Here it is.", "Sorry, I see no picture.", False),
        ("yes or no", "Yes, there is no doubt.", "A red cat: yes.", True),
        ("yes or no", "No", "The dog is on the right: no.", True),
        ("yes or no", "A cat: no.", "A red cat: yes.", False),
        ("yes or no", "An elephant? A pink elephant: yes. So an elephant.", "An elephant? A pink elephant: yes.", True),
        ("count", "Elephants? A pink fox: no. So an elephant.", "So none.", False),
        ("which", "The 2nd picture", "So the second picture.", True),
        ("which", "Picture 1.", "So the second picture.", False),
        ("count", "There are 2 animals.", "So two.", True),
        ("count", "Two animals, no more.", "So two.", True),
        ("count", "3", "So two.", False),
        ("count", "", "So none.", False),
        ("yes or no", "A fox? A cat: no, a fox: yes. So yes.", "A fox? A fox: yes.", True),
        ("which", "The second picture.", "A cat? First a fox: no, second a cat: yes. So the second picture.", True),
        (
            "which",
            "A cat? First a cat: yes, second a fox: no. So the first picture.",
            "A cat? First a fox: no, second a cat: yes. So the second picture.",
            False,
        ),
        ("count", "There are two.", "Two.", True),
        ("count", "There is no fox.", "None.", True),
        ("count", "Foxes? A cat: no, a fox: yes. So one.", "Foxes? A cat: no, a fox: yes. So one.", True),
        ("count", "Foxes? A cat: no, a fox: yes. So two.", "Foxes? A cat: no, a fox: yes. So one.", False),
        ("compare", "The colour: first red, then blue.", "The colour: first red, then blue.", True),
        ("compare", "The colour: first blue, then red.", "The colour: first red, then blue.", False),
        ("compare", "It went from red to blue.", "The colour: first red, then blue.", True),
        ("compare", "The red fox has become a red dog.", "The animal: first fox, then dog.", True),
        ("compare", "The time of day: first day, then night.", "The time: first day, then night.", True),
        ("compare", "From red to blue, and from a fox to a dog.", "The colour: first red, then blue.", False),
        ("compare", "From the red fox to the red dog.", "The colour: first red, then blue.", False),
        ("which", "The second picture, not the first.", "So the second picture.", True),
        ("which", "Not the second but the first.", "So the second picture.", False),
        ("describe", "A red fox in the forest.", "A red fox in the middle in the forest by day.", True),
        ("ending", "And they all slept. The end.", "The fox is home. The end.", True),
        ("ending", "The fox walks on.", "The fox is home. The end.", False),
        ("ending", "The dog and the cat sleep in the city. The end.", "The fox sleeps in the forest. The end.", False),
        ("ending", "The fox sleeps in the city. The end.", "The fox sleeps in the forest. The end.", False),
        ("ending", "In the end they walk to the beach.", "So the story ends by the sea.", False),
        ("ending", "The story has ended.", "So the story ends by the sea.", True),
        ("ending", "Sorry, I do not know how it ends.", "So the story ends by the sea.", False),
        ("time", "The time of day is night.", "It is night.", True),
        ("time", "The time of day.", "It is day.", False),
        ("place", "On the beach, under a palm tree.", "It is on the beach.", True),
        ("colour", "It is not red.", "The fox is red.", False),
        ("colour", "It is blue, not red.", "The fox is blue.", True),
        ("animal", "There is no fox.", "A fox.", False),
        ("yes or no", "Yes or no: is the fox red?", "The fox is red: no.", False),
        ("yes or no", "It isn't true.", "The fox is red: yes.", False),
        ("yes or no", "It isn't true.", "The fox is red: no.", True),
        ("count", "There are no foxes, only one dog.", "So one.", False),
        ("count", "No one.", "So none.", True),
        ("count", "Of the two animals one is a fox.", "So one.", True),
        ("which", "It is the first, not in the second.", "So the first picture.", True),
        ("describe", "A red fox in the city in the forest.", "A red fox in the middle in the forest by day.", False),
        (
            "describe",
            "A red fox on the left on the right in the forest.",
            "A red fox on the left in the forest.",
            False,
        ),
        ("ground", "{<10><10><50><50>}", "{<12><10><52><50>}", True),
        ("ground", "{<10><10><50><50>}", "{<50><10><90><50>}", False),
        ("refer", "The red fox", "A red fox.", True),
        ("refer", "The sun.", "The moon.", False),
        ("describe", "On the left a red fox, in the forest.", "A red fox on the left in the forest by day.", True),
        ("describe", "A red fox in the forest.", "A red fox on the left in the forest by day.", False),
    ],
)
def test_marks_go_by_meaning(kind, reply, truth, right):
    assert MARKS[kind](reply, truth) is right


@pytest.mark.parametrize("brief", [False, True])
def test_every_caption_of_a_scene_is_marked_right(brief):
    for seed in SEEDS:
        scene, rng = sample_scene(random.Random(seed)), random.Random(seed)
        for wording in ("train", "fresh"):
            assert MARKS["describe"](caption(scene, rng, wording, brief), plain_caption(scene))
