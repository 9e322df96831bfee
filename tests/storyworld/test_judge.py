"""The shipped judge reads off renders what they show."""

import random

import torch

from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.judge import (
    NUM_OPTIONS,
    QUESTIONS,
    Verdict,
    answers,
    judge_accuracy,
    load_judge,
    split_questions,
)
from minigpt5.storyworld.scene import Character, Scene, sample_scene

FOX = Scene(Character("fox", "red"), "left", "city", "night", Character("cat", "white"))


def test_the_shipped_judge_reads_fresh_scenes():
    scenes = [sample_scene(random.Random(f"fresh/{seed}")) for seed in range(100)]
    accuracy = judge_accuracy(load_judge().read([draw(scene) for scene in scenes]), scenes)
    assert accuracy["all"] > 0.95


def test_the_shipped_judge_knows_held_out_pairs():
    scenes = [sample_scene(random.Random(seed), held_out=True) for seed in range(100)]
    accuracy = judge_accuracy(load_judge().read([draw(scene) for scene in scenes]), scenes)
    assert accuracy["kind"] > 0.95 and accuracy["colour"] > 0.95


def test_answers_name_the_right_options():
    named = {q: options[i] for (q, options), i in zip(QUESTIONS.items(), answers(FOX), strict=True)}
    assert named["kind left"] == "fox" and named["colour right"] == "white" and named["kind middle"] == "nobody"
    assert (named["place"], named["time"]) == ("city", "night")


def test_logits_fall_into_one_part_a_question():
    parts = split_questions(torch.zeros(2, NUM_OPTIONS))
    assert [part.shape[1] for part in parts] == [len(options) for options in QUESTIONS.values()]


def test_kinds_are_compared_from_left_to_right_whatever_the_side():
    moved = Verdict({"left": None, "middle": FOX.hero, "right": FOX.companion}, "city", "night").compare(FOX)
    assert moved["kind"] and moved["colour"] and not moved["side"] and not moved["all"]
    swapped = Verdict({"left": FOX.companion, "middle": None, "right": FOX.hero}, "city", "night").compare(FOX)
    assert not swapped["kind"] and not swapped["colour"] and swapped["side"]
