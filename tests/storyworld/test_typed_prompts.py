"""Prompts are typed as people type them; one that names nothing of StoryWorld is told so."""

import random
from collections import Counter

import pytest
from typos import within_one_edit

from minigpt5.storyworld.language import KNOWN_WORDS, caption, split_words
from minigpt5.storyworld.prompts import roughen, unknown_prompt_warning
from minigpt5.storyworld.scene import sample_scene
from minigpt5.storyworld.wordings import POLITE


@pytest.mark.parametrize(("wording", "most"), [("train", 4), ("fresh", 1)])
def test_rough_prompts_keep_every_word_within_one_edit(wording, most):
    polite = {word for text in POLITE[wording] for word in split_words(text)}
    counts = Counter()
    for seed in range(500):
        rng = random.Random(seed)
        text = caption(sample_scene(rng), rng)
        rough = roughen(text, rng, wording)
        assert rough != text and rough == roughen(text, _after_caption(seed), wording)
        words, typed = split_words(text), split_words(rough)
        if len(typed) > len(words):
            start = next(i for i in range(len(typed)) if _mistyped(words, typed[i : i + len(words)]) <= most)
            assert set(typed[:start] + typed[start + len(words) :]) <= polite
            typed = typed[start : start + len(words)]
        counts[_mistyped(words, typed)] += 1
    assert 100 < counts[0] < 400 and set(counts) == set(range(most + 1))


def test_a_typo_makes_no_other_word_of_the_world():
    for seed in range(300):
        (typed,) = split_words(roughen("forest", random.Random(seed), "train"))[-1:]
        assert typed == "forest" or typed not in KNOWN_WORDS


def _after_caption(seed):
    rng = random.Random(seed)
    caption(sample_scene(rng), rng)
    return rng


def _mistyped(words, typed):
    """How many words differ, each by one edit; more than any text has where one differs by more."""
    unlike = [(one, other) for one, other in zip(words, typed, strict=True) if one != other]
    return len(unlike) if all(within_one_edit(*pair) for pair in unlike) else 99


@pytest.mark.parametrize("text", ["Foxes play.", "CATS!", "two cities", "by the sea", "a red ball", "Turtles", "night"])
def test_known_prompts(text):
    assert unknown_prompt_warning(text) is None


def test_unknown_prompt():
    warning = unknown_prompt_warning("A dragon lands on Mars.")
    assert "\n" not in warning
    for name in ("fox", "purple", "beach", "night"):
        assert name in warning
