"""MM-Relevance, in two definitions that cannot be compared, and whether pictures come where they are wanted."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from minigpt5.metrics.encoders import load_clip_encoder
from minigpt5.metrics.items import ItemMetric, paired
from minigpt5.utils.images import Picture

# A turn of a dialogue: its text, and its picture or None.
Turn = tuple[str, "Picture | None"]


class MMRelevanceMMDialog(ItemMetric):
    """MM-Relevance as MMDialog (Feng et al. 2023) and its script `compute_mmrel.py` define it.

    A reply is a list of elements, texts and pictures. The first element is compared with the truth's first, the second
    with its second and so on, a text with a picture too where they meet, by the CLIP cosine times 100 (CLIP's learned
    scale). The sum of the pairs divided by the number of elements of the reply is precision, by that of the truth
    recall. Figures are means over replies: "mm_relevance_mmdialog" (F1), and with "_precision" and "_recall" behind.

    Args:
        encoder: for `load_clip_encoder`; ViT-B/32 is what the script uses.

    Raises:
        MissingWeights: if CLIP's weights are not there.
    """

    columns = ("mm_relevance_mmdialog", "mm_relevance_mmdialog_precision", "mm_relevance_mmdialog_recall")
    higher_is_better = True

    def __init__(self, encoder: str | Path | nn.Module = "ViT-B/32", **kwargs):
        super().__init__(**kwargs)
        self.encoder = load_clip_encoder(encoder)

    def update(self, replies: Sequence[Sequence[str | Picture]], truths: Sequence[Sequence[str | Picture]]) -> None:
        """Take replies and the true one in the place of each.

        Raises:
            ValueError: if a true reply is empty.
        """
        rows = []
        for reply, truth in paired("replies", replies, "true replies", truths):
            if not len(truth):
                raise ValueError("a true reply has no element")
            pairs = list(zip(reply, truth, strict=False))
            total = 100 * sum(_cosines(self.encoder, pairs))
            rows.append(_soft_f1(total, len(reply), len(truth)))
        self.add(rows)


class MMRelevancePerTurn(ItemMetric):
    """MM-Relevance as the published MiniGPT-5 code measures it (Table 5): by turns of a dialogue and by modality.

    In each turn text is compared with text and picture with picture, by the CLIP cosine. Over a dialogue, their sum
    divided by the number of elements said is precision, by that of the elements wanted recall: an element without a
    counterpart counts as 0 on its side. A text of punctuation alone counts as none. Figures are means over dialogues:
    "mm_relevance_per_turn" (F1), and with "_precision" and "_recall" behind; a dialogue without any pair has 0.

    Args:
        encoder: for `load_clip_encoder`; ViT-B/32 is what the published code uses.

    Raises:
        MissingWeights: if CLIP's weights are not there.
    """

    columns = ("mm_relevance_per_turn", "mm_relevance_per_turn_precision", "mm_relevance_per_turn_recall")
    higher_is_better = True

    def __init__(self, encoder: str | Path | nn.Module = "ViT-B/32", **kwargs):
        super().__init__(**kwargs)
        self.encoder = load_clip_encoder(encoder)

    def update(self, dialogues: Sequence[Sequence[Turn]], truths: Sequence[Sequence[Turn]]) -> None:
        """Take dialogues, each a list of turns `(text, picture or None)`, and the true turns in the place of each.

        Raises:
            ValueError: if a dialogue has not as many turns as its truth.
        """
        rows = []
        for dialogue, truth in paired("dialogues", dialogues, "true dialogues", truths):
            pairs, said, wanted = [], 0, 0
            for turn, true_turn in paired("turns", dialogue, "true turns", truth):
                for element, true_element in zip(_elements(turn), _elements(true_turn), strict=True):
                    said += element is not None
                    wanted += true_element is not None
                    if element is not None and true_element is not None:
                        pairs.append((element, true_element))
            rows.append(_soft_f1(sum(_cosines(self.encoder, pairs)), said, wanted))
        self.add(rows)


class PictureDecision(ItemMetric):
    """Whether replies hold a picture where the truth does: "picture_precision", "_recall", "_f1" and "_accuracy".

    Where no picture is painted precision is 0, where none is wanted recall is.
    """

    columns = ("painted", "wanted")
    higher_is_better = True

    def update(self, painted: Sequence[bool], wanted: Sequence[bool]) -> None:
        """Take for each reply whether it holds a picture, and whether the truth does."""
        self.add(paired("painted", painted, "wanted", wanted))

    def summarise(self, items: np.ndarray) -> dict[str, float]:
        """Figures of rows `(items, 2)`."""
        painted, wanted = items.astype(bool).T
        f1, precision, recall = _soft_f1(float((painted & wanted).sum()), int(painted.sum()), int(wanted.sum()))
        return {
            "picture_f1": f1,
            "picture_precision": precision,
            "picture_recall": recall,
            "picture_accuracy": float((painted == wanted).mean()),
        }


def _elements(turn: Turn) -> tuple[str | None, Picture | None]:
    text, picture = turn
    return (None if all(letter in string.punctuation for letter in text.strip()) else text), picture


def _cosines(encoder: Any, pairs: list[tuple]) -> list[float]:
    """The cosine of each pair of elements."""
    elements = [element for pair in pairs for element in pair]
    vectors: list[Any] = [None] * len(elements)
    for is_text, encode in ((True, encoder.encode_texts), (False, encoder.encode_pictures)):
        chosen = [i for i, element in enumerate(elements) if isinstance(element, str) == is_text]
        if chosen:
            for i, vector in zip(chosen, encode([elements[i] for i in chosen]), strict=True):
                vectors[i] = vector
    return [float(one @ other) for one, other in zip(vectors[::2], vectors[1::2], strict=True)]


def _soft_f1(total: float, said: int, wanted: int) -> tuple[float, float, float]:
    """F1, precision and recall of a sum of agreements."""
    precision = total / said if said else 0.0
    recall = total / wanted if wanted else 0.0
    both = precision + recall
    return (2 * precision * recall / both if both else 0.0), precision, recall
