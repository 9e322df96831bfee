"""Whether one model should take the place of another: both are asked the same, with intervals of what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from minigpt5.data.layouts import chat_lines
from minigpt5.data.splits import choose_split
from minigpt5.evaluation.items import checked, opened
from minigpt5.metrics.intervals import Interval, paired_difference, randomisation_p_value
from minigpt5.metrics.reading import normalise_answer
from minigpt5.metrics.text import RougeL
from minigpt5.pipeline import MiniGPT5Pipeline

# Of fewer items a bootstrap is too sure.
FEWEST_ITEMS = 10

Marks = Mapping[str, Sequence[float]]
"""A mark in [0, 1] an item, by figure."""


@dataclass(frozen=True)
class Figure:
    """Means of both models' marks, and the interval of the second's less the first's.

    Args:
        p_value: see `randomisation_p_value`.
    """

    a: float
    b: float
    difference: Interval
    items: int
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Figures by name, and what follows of them.

    Args:
        figures: whose intervals are those of all together, at 95 %.
        verdict: "replace" where the second model is better in some figure and worse in none, "keep" where it is worse
            in some and better in none, otherwise "undecided". Better and worse are what a randomisation test finds.
    """

    figures: Mapping[str, Figure]
    verdict: str

    def record(self) -> dict[str, Any]:
        """As JSON has it."""
        figures = {
            name: {
                "a": one.a,
                "b": one.b,
                "difference": list(one.difference),
                "items": one.items,
                "p_value": one.p_value,
            }
            for name, one in self.figures.items()
        }
        return {"figures": figures, "verdict": self.verdict}


def compare(a: Marks, b: Marks) -> Comparison:
    """Marks of two models that were asked the same items in the same order.

    Each of n figures is tested at 0.05 / n (Bonferroni), so that of two equal models one in twenty comparisons at most
    sees any difference. Its interval is of confidence 1 - 0.05 / n; of few items such an interval is too narrow to
    decide by.

    Raises:
        ValueError: if the models have other figures or other numbers of items, or a figure has fewer than ten.
    """
    if a.keys() != b.keys() or not a:
        raise ValueError(f"both need the same figures, got {', '.join(a) or 'none'} and {', '.join(b) or 'none'}")
    figures = {}
    for name, ones in a.items():
        _check_enough(name, ones)
        difference = paired_difference(b[name], ones, confidence=1 - 0.05 / len(a))
        p_value = randomisation_p_value(b[name], ones)
        figures[name] = Figure(float(np.mean(ones)), float(np.mean(b[name])), difference, len(ones), p_value)
    told = [one.difference.estimate for one in figures.values() if one.p_value <= 0.05 / len(a)]
    better, worse = any(estimate > 0 for estimate in told), any(estimate < 0 for estimate in told)
    verdict = "undecided" if better == worse else "replace" if better else "keep"
    return Comparison(figures, verdict)


def _check_enough(name: str, items: Sequence[Any]) -> None:
    if len(items) < FEWEST_ITEMS:
        raise ValueError(f"{name} has {len(items)} items; a comparison needs at least {FEWEST_ITEMS}")


@dataclass(frozen=True)
class ChatItem:
    """A conversation without its last reply, the words of that, and how many pictures it has."""

    messages: list[dict[str, Any]]
    text: str
    pictures: int


def chat_items(folder: Path, count: int | None = None) -> list[ChatItem]:
    """The conversations of a folder in the layout `chat` that are kept to judge by.

    Raises:
        FileNotFoundError, ValueError: see `choose_split` and `chat_rows`; or if there are too few to compare by.
    """
    file = folder / f"{choose_split(folder, 'chat', 'validation')}.jsonl"
    items: list[ChatItem] = []
    for _, _, (*messages, reply) in chat_lines(file):
        words = " ".join(part["text"] for part in reply["content"] if part["type"] == "text")
        pictures = sum(part["type"] == "image" for part in reply["content"])
        items.append(ChatItem(messages, words, pictures))
    items = checked(items, str(file))[:count]
    _check_enough(str(file), items)
    return items


def chat_marks(pipe: MiniGPT5Pipeline, items: Sequence[ChatItem], batch_size: int = 16) -> dict[str, list[float]]:
    """Marks of a pipeline's likeliest replies.

    Returns:
        "exact match", whether the words are the true ones, normalised as VQA's are, and as many pictures are painted;
        "ROUGE-L" of the words, where ten replies have some. How pictures look is not judged.
    """
    replies: list[list[str | Image.Image]] = []
    for start in range(0, len(items), batch_size):
        batch = [opened(item.messages) for item in items[start : start + batch_size]]
        # What a picture shows is of no account here, so one step is enough.
        replies += pipe(batch, image_mode="auto", num_inference_steps=1).segments
    words = [" ".join(part for part in reply if isinstance(part, str)) for reply in replies]
    painted = [sum(not isinstance(part, str) for part in reply) for reply in replies]
    told = list(zip(items, words, painted, strict=True))
    exact = [
        float(normalise_answer(text) == normalise_answer(item.text) and pictures == item.pictures)
        for item, text, pictures in told
    ]
    spoken = [(text, item.text) for item, text, _ in told if item.text.strip()]
    rouge, enough = RougeL(), len(spoken) >= FEWEST_ITEMS
    if enough:
        rouge.update(*zip(*spoken, strict=True))
    return {"exact match": exact} | ({"ROUGE-L": rouge.items[:, 0].tolist()} if enough else {})
