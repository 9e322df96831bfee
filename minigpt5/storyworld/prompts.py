"""What one may ask of a model that knows StoryWorld alone, and how people type it."""

from __future__ import annotations

import random
import re

from minigpt5.storyworld.language import KNOWN_WORDS, split_words
from minigpt5.storyworld.scene import COLOURS, KINDS, PLACES, TIMES
from minigpt5.storyworld.wordings import POLITE

KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
# In how many words at most. Each way to mistype a word is rare, so training sees more of them than people make.
TYPOS = {"train": 4, "fresh": 1}
# Capitals are rare and split into more subwords, so training sees more of them too.
CASES = {"train": (str.lower, str.upper, str.upper, str.title), "fresh": (str.lower, str.lower, str.upper, str.title)}


def unknown_prompt_warning(text: str) -> str | None:
    """One line on what the StoryWorld miniature knows, if a text names nothing of it, in the singular or plural."""
    plurals = {f"{word.removesuffix('y')}{ending}" for word in KNOWN_WORDS for ending in ("s", "es", "ies")}
    if not (KNOWN_WORDS | plurals).isdisjoint(split_words(text)):
        return None
    known = {"animals": KINDS, "colours": COLOURS, "places": PLACES, "times": TIMES}
    lists = "; ".join(f"{name} {', '.join(words)}" for name, words in known.items())
    return f"the prompt names nothing that storyworld-mini knows ({lists}), so expect something else"


def roughen(text: str, rng: random.Random, wording: str = "train") -> str:
    """A prompt as people type it: another case, no punctuation, a typo in a word, or polite words around it.

    At least one of these is done; words keep their order, and each but those added is within one edit (a letter left
    out, doubled, replaced by its neighbour on the keyboard, or two swapped) of what it was.

    Args:
        wording: "train" has typos in up to four words and many capitals, "fresh" typos in one at most.
    """
    rough = text
    while rough == text:
        if rng.random() < 0.5:
            rough = re.sub(r"[.,:;!?]", "", rough)
        if rng.random() < 0.5:
            rough = _mistype(rough, rng, rng.randint(1, TYPOS[wording]))
        if rng.random() < 0.25:
            rough = rng.choice(POLITE[wording]).format(text=rough)
        if rng.random() < 0.6:
            rough = rng.choice(CASES[wording])(rough)
    return rough


def _mistype(text: str, rng: random.Random, count: int) -> str:
    """A typo in as many words of at least four letters, none of which makes another word of the world."""
    words = list(re.finditer(r"[A-Za-z]{4,}", text))
    # From the end, where a typo moves no word that is still to come.
    for word in sorted(rng.sample(words, min(count, len(words))), key=re.Match.start, reverse=True):
        typed = word.group()
        while typed == word.group() or typed.lower() in KNOWN_WORDS:
            typed = _one_edit(word.group(), rng)
        text = text[: word.start()] + typed + text[word.end() :]
    return text


def _one_edit(word: str, rng: random.Random) -> str:
    at = rng.randrange(1, len(word))
    before, letter, behind = word[:at], word[at], word[at + 1 :]
    way = rng.choice(("leave out", "double", "swap", "neighbour"))
    if way == "leave out":
        return before + behind
    if way == "double":
        return before + letter + letter + behind
    if way == "swap":
        return before + behind[:1] + letter + behind[1:]
    row = next(row for row in KEYBOARD if letter.lower() in row)
    place = row.index(letter.lower())
    return before + rng.choice(row[max(place - 1, 0) : place] + row[place + 1 : place + 2]) + behind
