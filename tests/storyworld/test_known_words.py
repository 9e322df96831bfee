"""A prompt that names nothing of StoryWorld is told so."""

import pytest

from minigpt5.storyworld.prompts import unknown_prompt_warning


@pytest.mark.parametrize("text", ["Foxes play.", "CATS!", "two cities", "by the sea", "a red ball", "Turtles", "night"])
def test_known_prompts(text):
    assert unknown_prompt_warning(text) is None


def test_unknown_prompt():
    warning = unknown_prompt_warning("A dragon lands on Mars.")
    assert "\n" not in warning
    for name in ("fox", "purple", "beach", "night"):
        assert name in warning
