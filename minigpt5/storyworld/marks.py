"""Whether a reply is right: by what it means, not by its words. `MARKS` has what counts for each kind of question."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

from minigpt5.storyworld.language import (
    NUMBERS,
    ORDINALS,
    SIDE_WORDS,
    WORD_PLACES,
    WORD_TIMES,
    describes,
    imagine,
    read,
    split_words,
)
from minigpt5.storyworld.scene import COLOURS, KINDS, LIGHTS
from minigpt5.storyworld.wordings import SORRY
from minigpt5.utils.boxes import parse_box, same_thing

Mark = Callable[[str, str], bool]
_DIGITS = {"one": "1", "two": "2", "three": "3"}


def conclusion(text: str) -> str:
    """What a reply says behind the comparison that it makes first, up to "So blue."; all of it, if that is nothing."""
    return re.split(r"\bSo [^.]*\.\s*", text)[-1] or text


def _told(text: str, meanings: Mapping[str, Any]) -> list:
    """What the words of a text mean, in their order; those without a meaning are passed over."""
    # A palm is no forest.
    plain = re.sub(r"\btime of day\b|\bpalm trees?\b", "", text.lower())
    return [meanings[word] for word in split_words(plain) if word in meanings]


def _same(meanings: Mapping[str, Any]) -> Mark:
    """Whether a reply names the same of some words' meanings as the true answer, and no other.

    What it says that it is not ("It is red, not blue.") counts for nothing.
    """

    def named(text: str) -> set:
        return set(_told(re.sub(r"(\bnot|\bno|n't)\b[^.,:;]*", "", text.lower()), meanings))

    return lambda reply, truth: named(reply) == named(truth)


def _same_conclusion(meanings: Mapping[str, Any], weak: Mapping[str, Any] | None = None, begins: bool = False) -> Mark:
    """Whether a reply concludes with the same of some words' meanings as the true answer.

    It concludes with its first word ("Yes, there is no doubt."), or with the last with a meaning ("A red cat: yes."),
    behind its last "so" if there is one there.

    Args:
        weak: words that count where no other does, as the "no" of "Two animals, no more."
        begins: the first with a meaning counts, not the last ("Two animals: one fox and one dog.").
    """

    def concluded(text: str) -> Any:
        whole = re.sub(r"(\bnot|n't) true\b", " false", text.lower())
        if re.search(r"\b(yes|true) (and|or) (no|false)\b|\b(no|false) (and|or) (yes|true)\b", whole):
            return None
        # What it says that it is not is no conclusion ("The second, not the first."), nor of how many it is one.
        whole = re.sub(r"\bnot (the |an? |in the )?\w+|\bof (the )?(\d|two|three)\b", "", whole)
        if begins:
            whole = re.sub(rf"\bno (?:one|(?:{'|'.join(KINDS)}))\w*", "none", whole)
        whole = re.sub(r"\bpicture (one|two|three)\b", lambda told: f"picture {_DIGITS[told[1]]}", whole)
        *_, behind = re.split(r"\bso\b", whole)
        for said, known in ((behind, meanings), (whole, meanings), (behind, weak or {})):
            told = [word for word in re.findall(r"[a-z]+|\d+", said) if word in known]
            # A word of its own, not the first of several as in "Yes and no."
            front = re.match(r"\W*((?:yes|no|true|false)\b(?! and| or)|(?:[a-z]+|\d+)(?=[^\w\s]|\s*$))", said)
            if told:
                return known[told[0] if begins or (front and front[1] == told[0]) else told[-1]]
        return None

    return lambda reply, truth: concluded(reply) == concluded(truth)


def _same_difference(reply: str, truth: str) -> bool:
    """The same before and after, and nothing else that changes."""
    aspects = ({kind: kind for kind in KINDS}, {colour: colour for colour in COLOURS}, WORD_PLACES, WORD_TIMES)
    for meanings in aspects:
        told = (_told(text, meanings) for text in (reply, truth))
        # "On the sand by the sea" names one place twice.
        one, other = ([meaning for meaning, _ in groupby(named)] for named in told)
        if one != other if other else len(set(one)) > 1:
            return False
    return True


def _same_description(reply: str, truth: str) -> bool:
    scene = imagine(truth)
    return scene is not None and describes(reply, scene)


def _same_thing(reply: str, truth: str) -> bool:
    lights = set(LIGHTS.values())
    one, other = ([(who.kind, who.colour) for who in read(text).mentions] for text in (reply, truth))
    return one == other and lights & set(split_words(reply)) == lights & set(split_words(truth))


def _same_box(reply: str, truth: str) -> bool:
    one, other = parse_box(reply), parse_box(truth)
    assert other is not None, f"the truth {truth!r} is no box"
    return one is not None and same_thing(one, other)


def _reason(text: str) -> str | None:
    """Why something is refused, by `SORRY`; whether an unknown word means an animal or a thing nobody can tell."""
    told = " ".join(split_words(text))
    reason = next((kind for kind, sorry in SORRY.items() if " ".join(split_words(sorry)) in told), None)
    return "thing" if reason == "animal" else reason


def _same_refusal(reply: str, truth: str) -> bool:
    return says_sorry(reply) and _reason(reply) == _reason(truth)


def _same_end(reply: str, truth: str) -> bool:
    """Whether it ends the story, and of no other animal and at no other place."""
    told, true = read(reply), read(truth)
    kinds, own = ({who.kind for who in each.mentions} for each in (told, true))
    return says_end(reply) and (not own or kinds <= own) and (not true.place or told.place in (None, true.place))


MARKS: dict[str, Mark] = {
    "animal": _same({kind: kind for kind in KINDS}),
    "colour": _same({colour: colour for colour in COLOURS}),
    "place": _same(WORD_PLACES),
    "time": _same(WORD_TIMES),
    "place and time": _same(WORD_PLACES | WORD_TIMES),
    "side": _same(SIDE_WORDS),
    "yes or no": _same_conclusion({"yes": "yes", "true": "yes", "no": "no", "false": "no"}),
    "count": _same_conclusion(
        {"zero": 0, "nobody": 0, "single": 1, **{str(i): i for i in range(10)}}
        | {word: i for i, word in enumerate(NUMBERS)},
        weak={"no": 0},
        begins=True,
    ),
    "which": _same_conclusion({word: word for word in ORDINALS} | {str(i): word for i, word in enumerate(ORDINALS, 1)}),
    "compare": _same_difference,
    "describe": _same_description,
    "ground": _same_box,
    "refer": _same_thing,
    "outside": _same_refusal,
    "ending": _same_end,
}


def says_sorry(text: str) -> bool:
    """Whether a reply says that it does not do what was asked for."""
    return "sorry" in split_words(text)


def says_end(text: str) -> bool:
    """Whether a reply ends a story; not by what happens "in the end"."""
    told = " ".join(split_words(text)).replace("in the end", "").split()
    return not says_sorry(text) and not {"end", "ends", "ended"}.isdisjoint(told)
