"""What one may ask of a model that knows StoryWorld alone."""

from __future__ import annotations

from minigpt5.storyworld.language import KNOWN_WORDS, split_words
from minigpt5.storyworld.scene import COLOURS, KINDS, PLACES, TIMES


def unknown_prompt_warning(text: str) -> str | None:
    """One line on what the StoryWorld miniature knows, if a text names nothing of it, in the singular or plural."""
    plurals = {f"{word.removesuffix('y')}{ending}" for word in KNOWN_WORDS for ending in ("s", "es", "ies")}
    if not (KNOWN_WORDS | plurals).isdisjoint(split_words(text)):
        return None
    known = {"animals": KINDS, "colours": COLOURS, "places": PLACES, "times": TIMES}
    lists = "; ".join(f"{name} {', '.join(words)}" for name, words in known.items())
    return f"the prompt names nothing that storyworld-mini knows ({lists}), so expect something else"
