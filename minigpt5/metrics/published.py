"""Two figures as the published code computes them, to read its tables by; not for anything else.

Both reproduce what `metric.py` of the published code does, which is not what their names say in the field.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from minigpt5.metrics.items import ItemMetric, paired
from minigpt5.metrics.pictures import PUBLISHED_RESIZE, FrechetInceptionDistance
from minigpt5.metrics.weights import require
from minigpt5.utils.images import Picture


def character_bleu_as_published(text: str, truth: str) -> dict[str, float]:
    """BLEU-1 and BLEU-2 of Table 5: of characters, not words.

    nltk's BLEU takes lists of words; the published code gives it strings, whose items are characters. English sentences
    share most of their letters, so two that have nothing in common still score about 0.6 in BLEU-1. That is why
    `WordBLEU` is the default. The published table averages over the turns of a dialogue, then over dialogues.

    Returns:
        "character_bleu_1_as_published" and "character_bleu_2_as_published", in [0, 1]; 0 for an empty text.

    Raises:
        ModuleNotFoundError: if nltk is not installed.
    """
    bleu = require("nltk.translate").bleu
    scores = (0.0, 0.0)
    if text and truth:
        with warnings.catch_warnings():
            # A text without any common pair of letters.
            warnings.simplefilter("ignore", UserWarning)
            scores = bleu([truth], text, [(1.0,), (0.5, 0.5)])
    return {f"character_bleu_{n}_as_published": float(score) for n, score in enumerate(scores, 1)}


def story_fid_as_published(
    stories: Sequence[Sequence[Picture]],
    truths: Sequence[Sequence[Picture]],
    weights: str | Path | None = None,
    feature: nn.Module | None = None,
) -> float:
    """The FID of Table 2 for stories: the mean of one FID a story, of its five pictures to the five true ones.

    Five pictures leave a covariance of rank 4 in 2048 dimensions, so nearly nothing of a distribution is compared: the
    figure says how far apart the mean features of five pictures lie, is far above an FID of all pictures, and cannot
    be compared with any other. That is why `FrechetInceptionDistance` over all pictures is the default. Stories of one
    picture are left out, as there; pictures are resized to 256 and not antialiased.

    Args:
        weights, feature: see `FrechetInceptionDistance`.

    Raises:
        MissingWeights: if Inception's weights are not there.
        ValueError: if a story has not as many pictures as its truth, or no story has two.
    """
    metric = StoryFIDAsPublished(weights, feature)
    metric.update(stories, truths)
    if not len(metric.items):
        raise ValueError("no story has two pictures")
    return float(metric.items.mean())


class CharacterBLEUAsPublished(ItemMetric):
    """`character_bleu_as_published` as Table 5 has it: means over the turns of a talk, a row a talk."""

    columns = ("character_bleu_1_as_published", "character_bleu_2_as_published")
    higher_is_better = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        require("nltk")

    def update(self, talks: Sequence[Sequence[str]], truths: Sequence[Sequence[str]]) -> None:
        """Take the texts of talks, and the ones wanted in the place of each."""
        for talk, truth in paired("talks", talks, "true talks", truths):
            turns = [character_bleu_as_published(*pair) for pair in paired("texts", talk, "truths", truth)]
            self.add([[sum(turn[name] for turn in turns) / len(turns) for name in self.columns]])


class StoryFIDAsPublished(ItemMetric):
    """`story_fid_as_published` with a row a story; a story of one picture leaves none.

    Args:
        weights, feature: see `FrechetInceptionDistance`.

    Raises:
        MissingWeights: if Inception's weights are not there.
    """

    columns = ("story_fid_as_published",)
    higher_is_better = False

    def __init__(self, weights: str | Path | None = None, feature: nn.Module | None = None, **kwargs):
        super().__init__(**kwargs)
        self.fid = FrechetInceptionDistance(weights, feature, resize=PUBLISHED_RESIZE)

    def update(self, stories: Sequence[Sequence[Picture]], truths: Sequence[Sequence[Picture]]) -> None:
        """Take the pictures of stories and the true ones."""
        for story, truth in paired("stories", stories, "true stories", truths):
            paired("pictures", story, "true pictures", truth)
            if len(story) > 1:
                self.fid.update_both(story, truth)
                self.add([[self.fid.compute()["fid"].item()]])
                self.fid.reset()
