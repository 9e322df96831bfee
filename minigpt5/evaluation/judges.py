"""Judges of replies in text and pictures: a number in [0, 1] by each criterion, from whoever can say it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from minigpt5.evaluation.generation import System
from minigpt5.evaluation.items import Criterion, Item, text_part, user_message
from minigpt5.evaluation.measure import Measurements, figures_of
from minigpt5.evaluation.replies import Reply
from minigpt5.metrics.items import WhereAsked
from minigpt5.readers.prompts import Message
from minigpt5.utils.images import ImageError, open_image

# With a point or a comma.
_NUMBER = r"(?<![\d.,])-?(?:\d+(?:[.,]\d+)?|[.,]\d+)"
_YES_OR_NO = "1 if it is so, 0 if not"
_OUT_OF = r"\s*(?:/|out of(?: a possible)?)\s*"


class Judge(Protocol):
    """Whoever says how well replies do."""

    name: str

    def score(self, item: Item, reply: Reply) -> dict[str, float]:
        """A number in [0, 1] by criterion, 1 the best; without those that cannot be told of this reply.

        Raises:
            ValueError: if the judge cannot read it, as where it is too long; says why.
        """
        ...


class ModelJudge:
    """A vision-language model that is shown input and output and asked for a number by each of the item's criteria.

    Each criterion is a prompt of its own, and the number that `parse_mark` finds in what the model replies counts;
    where there is none, the criterion is left out. Criteria of one name are averaged.

    Args:
        name: of the model, for reports.
        system: called as a pipeline is, with `image_mode="never"`.
    """

    def __init__(self, name: str, system: System):
        self.name, self.system = name, system

    def score(self, item: Item, reply: Reply) -> dict[str, float]:
        """See `Judge`."""
        shown = [text_part("INPUT:"), *_parts(item.prompt()), text_part("OUTPUT:"), *_reply_parts(reply)]
        prompts = [user_message([*shown, text_part(_question(criterion))]) for criterion in item.criteria]
        said = self.system(prompts, image_mode="never", max_new_tokens=16).text if prompts else []
        marks: dict[str, list[float]] = {}
        for criterion, text in zip(item.criteria, said, strict=True):
            number = parse_mark(text, criterion.most)
            if number is not None:
                marks.setdefault(criterion.name, []).append(number / criterion.most)
        return {name: sum(own) / len(own) for name, own in marks.items()}


def _question(criterion: Criterion) -> str:
    scale = _YES_OR_NO if criterion.most == 1 else f"a whole number from 0, bad, to {criterion.most}, perfect"
    return (
        f"You judge OUTPUT, which replies to INPUT, by this:\n{criterion.statement}\nReply with {scale}, and no words."
    )


def parse_mark(text: str, most: int) -> float | None:
    """The mark that a judge's reply gives; `None` where there is none, or it is not from 0 to `most`.

    It is the number that the reply says to be out of `most` ("7/10", "8.5 out of 10"); or the one that it calls its
    score; or that it begins with; or of `most` ("7 of 10"); or else its last, as in "Criterion 1: 9". The scale told
    again ("0 to 10", "from 1 (bad) to 10") is none, and so is a mark of another ("4/5"). Of 1, yes and no are marks
    too, where no number stands by itself at the end.
    """
    text = text.replace(_YES_OR_NO, "")
    text = re.sub(rf"(?<![\d.])[01](?:\s*\([^)\d]*\)|,[^\d,.]*,)?\s*(?:-|–|to|and)\s*{most}(?!\d|\.\d)", "", text)
    if most == 1 and (word := re.match(r"\W*(yes|no)\b(?!.*[.:!?\n]\W*[01]\W*$)", text, re.IGNORECASE | re.DOTALL)):
        return float(word[1].lower() == "yes")
    end = r"(?![\d.]*\d)"
    called = rf"\b(?:score|mark|rating)\b[^\w.-]*(?:is|of)?[^\w.-]*({_NUMBER})(?!{_OUT_OF}\d)"
    said = re.search(rf"({_NUMBER}){_OUT_OF}{most}{end}", text) or re.search(called, text, re.IGNORECASE)
    if said is None and not re.search(rf"{_NUMBER}{_OUT_OF}\d", text):  # "4/5" is a mark on another scale
        said = (
            re.match(rf"[^\w.-]*({_NUMBER})", text)
            or re.search(rf"({_NUMBER})\s*of\s*{most}{end}", text)
            or re.search(rf".*?({_NUMBER})\D*$", text, re.DOTALL)
        )
    number = said and float(said[1].replace(",", "."))
    return number if number is not None and 0 <= number <= most else None


def _parts(prompt: Any) -> list[dict[str, Any]]:
    """What is shown and said in messages, one after the other."""
    messages: list[Message] = prompt
    return [part for message in messages for part in message["content"]]


def _reply_parts(reply: Reply) -> list[dict[str, Any]]:
    return [
        text_part(part) if isinstance(part, str) else {"type": "image", "image": open_image(part)}
        for part in reply.segments
    ]


class _Scores(WhereAsked):
    """Scores by criterion as figures."""

    def __init__(self, criteria: tuple[str, ...]):
        self.columns = criteria
        super().__init__()

    def update(self, scores: Sequence[dict[str, float]]) -> None:
        """Take what a judge said of each reply."""
        self.add([[own.get(name, float("nan")) for name in self.columns] for own in scores])


def judge_replies(measurements: Measurements, judge: Judge) -> None:
    """Add a judge's scores to the figures of all tasks, and say who it was and how many it could not tell."""
    for task in measurements.tasks.values():
        scores: list[dict[str, float]] = []
        refused: list[str] = []
        for item, reply in zip(task.items, task.replies, strict=True):
            try:
                scores.append(judge.score(item, reply))
            except ImageError:
                raise
            except ValueError as error:
                scores.append({})
                refused.append(f"{item.id}: {error}")
        names = tuple(dict.fromkeys(name for own in scores for name in own))
        untold = len(scores) - sum(bool(own) for own in scores)
        if refused:
            measurements.notes.append(f"{task.name}: the judge refused {len(refused)} of {len(scores)}; {refused[0]}.")
        if untold > len(refused):
            said = f"the judge said nothing that counts of {untold - len(refused)} of {len(scores)}"
            measurements.notes.append(f"{task.name}: {said}.")
        if names:
            metric = _Scores(names)
            metric.update(scores)
            told = figures_of(metric, task.groups)
            task.figures |= {f"judge: {name}": value for name, value in told.items()}
    measurements.notes.append(f"Figures that begin with “judge” are by {judge.name}.")
