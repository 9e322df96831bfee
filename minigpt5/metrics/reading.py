"""Whether a short answer is the one wanted, and whether a box is: question answering and grounding."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from minigpt5.metrics.items import ItemMetric, paired
from minigpt5.utils.boxes import Box, iou, parse_box, same_thing

# What VQA's evaluation code knows of words and marks, see `normalise_answer`.
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS = "zero one two three four five six seven eight nine ten"
_NUMBERS = {"none": "0"} | {word: str(number) for number, word in enumerate(_DIGITS.split())}
_ARTICLES = {"a", "an", "the"}
_CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd
    somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've
    something'll that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't
    we'd've we've weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's
    who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll
    you're you've
"""
# Any one of its apostrophes may be forgotten.
_CONTRACTIONS = {
    word[:at] + word[at + 1 :]: word for word in _CONTRACTED.split() for at, letter in enumerate(word) if letter == "'"
}


def normalise_answer(text: str) -> str:
    """An answer as VQA's evaluation code compares it (github.com/GT-Vision-Lab/VQA, `vqaEval.py`).

    In lower case, without articles and full stops, numbers up to ten in digits, forgotten apostrophes put back. An
    answer of articles alone, such as the choice "A", stays, of which that code leaves nothing.
    Punctuation parts words, but is left out where a space stands beside any of its kind, or where the text has a comma
    between digits.
    """
    text = re.sub(r"[\n\t]", " ", text).strip()
    plain = text
    between_digits = re.search(r"\d,\d", text) is not None
    for mark in _PUNCTUATION:
        left_out = f"{mark} " in text or f" {mark}" in text or between_digits
        plain = plain.replace(mark, "" if left_out else " ")
    words = [_NUMBERS.get(word, word) for word in re.sub(r"\.(?!\d)", "", plain).lower().split()]
    told = [word for word in words if word not in _ARTICLES] or words
    return " ".join(_CONTRACTIONS.get(word, word) for word in told)


class ExactMatch(ItemMetric):
    """Whether a reply is the answer that most people gave, both normalised; figure "exact_match".

    Of answers that equally many gave the first counts; VQA v2 gives the same as its `multiple_choice_answer`.
    """

    columns = ("exact_match",)
    higher_is_better = True

    def update(self, texts: Sequence[str], answers: Sequence[Sequence[str]]) -> None:
        """Take replies, and the true answers to each question, one or more.

        Raises:
            ValueError: if a question has none.
        """
        pairs = paired("texts", texts, "answers", answers)
        self.add([[normalise_answer(text) == most_common(own)] for text, own in pairs])


def most_common(answers: Sequence[str]) -> str:
    """The answer that most people gave, normalised.

    Raises:
        ValueError: if nobody gave any.
    """
    if not answers:
        raise ValueError("a question has no answer")
    return Counter(map(normalise_answer, answers)).most_common(1)[0][0]


class VQAAccuracy(ItemMetric):
    """VQA's soft accuracy (arXiv 1505.00468; visualqa.org/evaluation), of VQA v2 and OK-VQA; figure "vqa_accuracy".

    An answer is right by min(n / 3, 1) where n of nine people gave it; the figure is the mean of that over all choices
    of nine of the ten people. Replies and answers are normalised. VQA's own code leaves both as they are where all ten
    agree, so that there "Yes." is wrong for ten times "yes"; here it is right.
    """

    columns = ("vqa_accuracy",)
    higher_is_better = True

    def update(self, texts: Sequence[str], answers: Sequence[Sequence[str]]) -> None:
        """Take replies, and what people answered to each question, ten as a rule.

        Raises:
            ValueError: if a question has fewer than two answers, of which none can be left out.
        """
        self.add([[_soft_accuracy(text, own)] for text, own in paired("texts", texts, "answers", answers)])


def _soft_accuracy(text: str, answers: Sequence[str]) -> float:
    if len(answers) < 2:
        raise ValueError(f"VQA's accuracy leaves out one answer in turn, which takes two, got {len(answers)}")
    said = normalise_answer(text)
    same = [normalise_answer(answer) == said for answer in answers]
    return sum(min((sum(same) - left_out) / 3, 1.0) for left_out in same) / len(answers)


class GroundingAccuracy(ItemMetric):
    """Whether a reply's box is that of the thing named, as RefCOCO has it (arXiv 1608.00272).

    Figures: "grounding_accuracy", the share of boxes with an intersection over union of at least 0.5; "mean_iou";
    "box_share", of the replies in which `parse_box` reads a box. One without overlaps nothing.
    """

    columns = ("grounding_accuracy", "mean_iou", "box_share")
    higher_is_better = True

    def update(self, texts: Sequence[str], boxes: Sequence[Box]) -> None:
        """Take replies, and the true box of each in shares of the picture."""
        rows = []
        for text, box in paired("texts", texts, "boxes", boxes):
            told = parse_box(text)
            rows.append([same_thing(told, box), iou(told, box), True] if told else [False, 0.0, False])
        self.add(rows)
