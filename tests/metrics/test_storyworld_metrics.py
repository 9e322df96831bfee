"""Metrics of StoryWorld with verdicts that are known, and with the judge that ships."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from minigpt5.metrics import (
    FrechetInceptionDistance,
    HeroIdentity,
    StoryWorldPictures,
    TextAccuracy,
    shuffled,
    storyworld_bounds,
)
from minigpt5.metrics.storyworld import JudgeFeatures, edge_energy
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.examine import fresh_captions, sample_stories
from minigpt5.storyworld.judge import Verdict, judge_accuracy, load_judge
from minigpt5.storyworld.language import plain_caption
from minigpt5.storyworld.scene import Character, Scene

FOX, CAT, DOG = Character("fox", "red"), Character("cat", "blue"), Character("dog", "blue")
BEACH = Scene(FOX, "left", "beach", "night", CAT)


class Told:
    """A judge whose pictures are verdicts."""

    def read(self, pictures):
        return pictures


def seen(left=None, middle=None, right=None, place="beach", time="night"):
    return Verdict({"left": left, "middle": middle, "right": right}, place, time)


VERDICTS = [seen(FOX, None, CAT), seen(FOX, None, DOG, time="day"), seen(None, CAT), seen(FOX, FOX, CAT), seen()]


def test_attributes_and_characters_are_counted_as_by_hand(accumulates):
    done = accumulates(lambda: StoryWorldPictures(Told()), VERDICTS, [BEACH] * 5).figures
    assert done["kind_accuracy"] == 1 / 5 and done["colour_accuracy"] == 2 / 5
    assert done["side_accuracy"] == 2 / 5 and done["place_accuracy"] == 1 and done["time_accuracy"] == 4 / 5
    assert done["frame_accuracy"] == 1 / 5
    # Of 2, 2, 1, 3 and 0 characters seen 2, 1, 1, 2 and 0 are there; 2 are wanted each time.
    precision, recall = 6 / 8, 6 / 10
    assert done["character_precision"] == precision and done["character_recall"] == recall
    assert done["character_f1"] == pytest.approx(2 * precision * recall / (precision + recall))


def test_accuracy_is_the_judge_s_own(renders, scenes):
    metric = StoryWorldPictures()
    wrong = shuffled(scenes)
    metric.update(renders, wrong)
    wanted = judge_accuracy(load_judge().read(renders), wrong)
    figures = {name: value.item() for name, value in metric.compute().items()}
    assert figures["frame_accuracy"] == wanted.pop("all")
    assert {name: figures[f"{name}_accuracy"] for name in wanted} == wanted


def test_a_hero_is_followed_across_stories(accumulates):
    stories = [[seen(FOX), seen(None, FOX)], [seen(FOX), seen(CAT)], [seen(CAT), seen(DOG)], [seen(CAT)], [seen()]]
    heroes = [FOX, FOX, CAT, CAT, FOX]
    done = accumulates(lambda: HeroIdentity(Told()), stories, heroes).figures
    assert done == {"hero_identity": 5 / 8, "hero_in_all": 2 / 5}
    with pytest.raises(ValueError, match="no pictures"):
        HeroIdentity(Told()).update([[]], [FOX])


def test_the_shipped_judge_follows_the_heroes_of_true_stories():
    stories = sample_stories(6, True)
    pictures = [[draw(step.scene) for step in story.steps] for story in stories]
    heroes = [story.steps[0].scene.hero for story in stories]
    right, floor = HeroIdentity(), HeroIdentity()
    right.update(pictures, heroes)
    floor.update(pictures, shuffled(heroes))
    assert right.compute()["hero_in_all"].item() == 1
    assert floor.compute()["hero_identity"].item() < 0.5


@pytest.mark.parametrize(
    ("text", "truth", "kind", "colour", "place", "time"),
    [
        ("A red fox and a blue cat by the sea at night.", BEACH, 1, 1, 1, 1),
        ("A red fox by the sea at night.", BEACH, 0, 0, 1, 1),
        ("A blue fox and a red cat in the city.", BEACH, 1, 0, 0, 0),
        ("A red fox and a blue cat by the sea.", replace(BEACH, time="day"), 1, 1, 1, 1),
        ("The fox walks to the beach.", "It walks to the sea.", None, None, 1, None),
        ("It walks to the beach.", "The red fox goes home at night.", 0, 0, None, 0),
        ("Soon the fox is home at night.", "The fox goes home at night.", 1, None, None, 1),
    ],
)
def test_a_reply_names_what_the_truth_has(text, truth, kind, colour, place, time):
    metric = TextAccuracy()
    metric.update([text], [truth])
    asked = {"kind": kind, "colour": colour, "place": place, "time": time}
    wanted = {f"text_{name}_accuracy": value for name, value in asked.items() if value is not None}
    wanted["text_accuracy"] = min(wanted.values())
    assert {name: value.item() for name, value in metric.compute().items()} == wanted


def test_captions_name_their_scenes_and_not_others(scenes, accumulates):
    assert set(accumulates(TextAccuracy, fresh_captions(scenes), scenes).figures.values()) == {1}
    floor = TextAccuracy()
    floor.update([plain_caption(scene) for scene in scenes], shuffled(scenes))
    assert floor.compute()["text_accuracy"].item() < 0.5


def test_replies_without_what_is_asked_leave_the_others_figures_alone(accumulates):
    texts = ["It is in the city.", "A fox.", "A dog at night.", "It is dark.", "Here is a red fox."]
    truths = ["In the city.", "A fox.", "A cat at night.", "At night.", "A red fox."]
    done = accumulates(TextAccuracy, texts, truths)
    assert done.figures["text_kind_accuracy"] == 2 / 3 and done.figures["text_accuracy"] == 4 / 5
    assert set(done.metric.intervals()) == set(done.figures)


def test_a_truth_that_names_nothing_is_told():
    with pytest.raises(ValueError, match="names nothing"):
        TextAccuracy().update(["A fox."], ["Hello there."])


def test_shuffling_leaves_nobody_in_place():
    for seed in range(20):
        found = shuffled(range(7), seed)
        assert sorted(found) == list(range(7)) and all(i != truth for i, truth in enumerate(found))
    assert shuffled(range(7), 1) == shuffled(range(7), 1) != shuffled(range(7), 2)
    with pytest.raises(ValueError, match="at least two"):
        shuffled([1])


def test_bounds_lie_around_what_pictures_reach(renders, scenes):
    half = [*renders[:6], *shuffled(renders, seed=1)[6:]]
    metric = StoryWorldPictures()
    metric.update(half, scenes)
    bounds = storyworld_bounds(half, scenes)
    reached = metric.compute()["frame_accuracy"].item()
    assert bounds["floor"]["frame_accuracy"] < reached < bounds["ceiling"]["frame_accuracy"]
    assert 0 <= bounds["judge_error"]["frame_accuracy"] < 0.01
    assert set(bounds["floor"]) == set(bounds["ceiling"]) == set(bounds["judge_error"]) == set(metric.compute())


def test_edge_energy_is_that_counted_by_hand():
    # Stripes of one pixel, black and white: every neighbour across differs by 1, none below. Rows 3 to 6 count.
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::2] = 255
    assert edge_energy([Image.fromarray(stripes)]) == 1
    # Above the band nothing counts.
    above = np.zeros((8, 8, 3), np.uint8)
    above[:2, ::2] = 255
    assert edge_energy([Image.fromarray(above)]) == 0
    assert edge_energy([Image.fromarray(stripes), Image.fromarray(above)]) == 0.5


def test_blur_lowers_the_edges_and_is_seen_by_the_judge_s_features(renders):
    blurred = [picture.filter(ImageFilter.GaussianBlur(1)) for picture in renders]
    assert edge_energy(blurred) < 0.5 * edge_energy(renders)
    distance = FrechetInceptionDistance(feature=JudgeFeatures())
    distance.update_both(renders, renders)
    assert distance.compute()["fid"].item() == pytest.approx(0, abs=1e-3)
    distance.reset()
    distance.update_both(blurred, renders)
    assert distance.compute()["fid"].item() > 1


def test_the_judge_s_features_are_means_of_its_layers(renders):
    pixels = torch.from_numpy(np.stack([np.array(picture) for picture in renders[:2]])).permute(0, 3, 1, 2)
    features, judge = JudgeFeatures()(pixels), load_judge()
    assert features.shape == (2, 24 + 48 + 64 + 96)
    with torch.no_grad():
        # The last layer before the head is 4×4, flattened.
        last = judge.features(pixels / 127.5 - 1).view(2, 96, 16).mean(dim=2)
    assert torch.allclose(features[:, -96:], last, atol=1e-5)
