"""CIDEr: how near a caption is to the captions that people gave, words that few pictures have counting most."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from math import exp, hypot, log

import numpy as np
import torch
from torchmetrics.utilities.data import dim_zero_cat

from minigpt5.metrics.items import ItemMetric, paired
from minigpt5.metrics.text import Truth, options_of, treebank_words
from minigpt5.metrics.weights import require

LONGEST = 4
# Of the difference in length at which a caption counts by exp(-1/2).
SIGMA = 6.0
Ngram = tuple[str, ...]
_PUNCTUATION = re.compile(r"[\W_]+")


class Cider(ItemMetric):
    """CIDEr-D, which captioning reports as CIDEr (Vedantam et al., arXiv 1411.5726); figure "cider".

    The cosine of counts of n-grams, n of 1 to 4, each weighted by the logarithm of how many pictures there are for one
    with it in its captions; counts beyond a caption's own add nothing, and other lengths are punished. The mean over n,
    captions and pictures, times 10, as coco-caption has it, but that words are nltk's and not Stanford's.

    The weights are of all pictures measured: figures of few pictures cannot be compared, and that of a single one is 0.

    Raises:
        ModuleNotFoundError: if nltk is not installed.
    """

    columns = ("cider",)
    higher_is_better = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        require("nltk")

    def update(self, texts: Sequence[str], truths: Sequence[Truth]) -> None:
        """Take texts and the true caption of each picture, or several."""
        # Kept as bytes, a line an item: what words weigh is known when all items are there.
        for text, truth in paired("texts", texts, "truths", truths):
            line = json.dumps([text, *options_of(truth)]).encode() + b"\n"
            getattr(self, self._state).append(torch.tensor(list(line), dtype=torch.uint8, device=self.device))

    def nothing(self) -> torch.Tensor:
        """No bytes `(0,)`."""
        return torch.zeros(0, dtype=torch.uint8, device=self.device)

    @property
    def items(self) -> np.ndarray:
        """CIDEr of each text by the weights of all, `(texts, 1)`."""
        lines = getattr(self, self._state)
        kept = dim_zero_cat(lines).cpu().numpy().tobytes().splitlines() if len(lines) else []
        pictures = [[_ngrams(text) for text in json.loads(line)] for line in kept]
        having = Counter(ngram for _, *captions in pictures for ngram in set().union(*captions))
        # What no caption has weighs as much as what one has.
        weights = {ngram: log(len(pictures) / having.get(ngram, 1)) for own in pictures for ngram in set().union(*own)}
        scores = [10 * np.mean([_cider(text, one, weights) for one in captions]) for text, *captions in pictures]
        return np.array(scores, dtype=np.float64).reshape(-1, 1)


def _ngrams(text: str) -> Counter[Ngram]:
    """How often each n-gram comes in a text's words, in lower case and without punctuation."""
    words = [word.lower() for word in treebank_words(text) if not _PUNCTUATION.fullmatch(word)]
    return Counter(tuple(words[at : at + n]) for n in range(1, LONGEST + 1) for at in range(len(words) - n + 1))


def _cider(text: Counter[Ngram], caption: Counter[Ngram], weights: dict[Ngram, float]) -> float:
    """The similarity of a text and one caption, in [0, 1]."""
    cosines = 0.0
    for n in range(1, LONGEST + 1):
        one, other = (
            {ngram: count * weights[ngram] for ngram, count in counts.items() if len(ngram) == n}
            for counts in (text, caption)
        )
        lengths = hypot(*one.values()) * hypot(*other.values())
        if lengths:
            cosines += (
                sum(min(value, other[ngram]) * other[ngram] for ngram, value in one.items() if ngram in other) / lengths
            )
    # As coco-caption has it, length is told in pairs of words.
    longer = sum((len(ngram) == 2) * count for ngram, count in text.items())
    longer -= sum((len(ngram) == 2) * count for ngram, count in caption.items())
    return cosines / LONGEST * exp(-(longer**2) / (2 * SIGMA**2))
