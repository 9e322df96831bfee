"""Figures of replies to StoryWorld's items, kept as rows so that systems can be compared item by item.

Weights of CLIP and Inception cannot be had everywhere. The StoryWorld judge stands in for them: the cosine of its last
features for CLIP-I and the Fréchet distance over them for FID.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from minigpt5.evaluation.items import Item
from minigpt5.evaluation.replies import Reply, ReplyFolder
from minigpt5.metrics import MMRelevancePerTurn, PictureDecision, RougeL, SentenceSimilarity, TextAccuracy, WordBLEU
from minigpt5.metrics.intervals import Interval, bootstrap_interval, paired_difference
from minigpt5.storyworld.examine import hero_kept, text_agrees
from minigpt5.storyworld.judge import Judge
from minigpt5.storyworld.language import read
from minigpt5.storyworld.scene import Scene
from minigpt5.utils.images import Picture, open_image, to_tensor


class StandInEncoder(nn.Module):
    """CLIP's place where its weights are missing: the judge for pictures, a sentence encoder for texts.

    Vectors of a text and of a picture cannot be compared, as CLIP's can.
    """

    def __init__(self, judge: Judge, sentences: nn.Module):
        super().__init__()
        self.judge, self.sentences = judge, cast(Any, sentences)

    def encode_pictures(self, pictures: Sequence[Picture]) -> torch.Tensor:
        """Unit vectors `(pictures, features)`."""
        features = last_features(self.judge, pictures).flatten(1)
        return features / features.norm(dim=1, keepdim=True)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors `(texts, width)`."""
        return self.sentences.encode(
            list(texts), convert_to_tensor=True, normalize_embeddings=True, show_progress_bar=False
        )


@torch.no_grad()
def last_features(judge: Judge, pictures: Sequence[Picture]) -> torch.Tensor:
    """What the judge's linear layer reads: `(pictures, channels, cells)`."""
    pixels = torch.stack([to_tensor(picture, judge.config["image_size"]) for picture in pictures])
    return judge.features(pixels.to(judge.device, judge.dtype)).unflatten(1, (judge.config["channels"][-1], -1))


def frechet_distance(one: np.ndarray, other: np.ndarray) -> float:
    """The Fréchet distance of two normal distributions fitted to rows `(items, features)` (Heusel et al. 2017).

    The trace of the root of a product of covariances is taken from the symmetric product, whose eigenvalues are real.
    """
    means = one.mean(axis=0) - other.mean(axis=0)
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    overlap = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(0)).sum()
    return float(means @ means + np.trace(first) + np.trace(second) - 2 * overlap)


def _mean(rows: np.ndarray) -> float:
    """The mean of the items that have a value."""
    return float(np.nanmean(rows))


def _frechet(rows: np.ndarray) -> float:
    there = rows[~np.isnan(rows).any(axis=1)]
    half = there.shape[1] // 2
    return frechet_distance(there[:, :half], there[:, half:])


def _bleu(order: int) -> Callable[[np.ndarray], float]:
    metric = WordBLEU()
    return lambda rows: metric.summarise(rows)[f"bleu_{order}"]


def _decision(rows: np.ndarray) -> float:
    return PictureDecision().summarise(rows)["picture_f1"]


@dataclass(frozen=True)
class Figure:
    """How a figure is taken of rows.

    Args:
        label: for tables.
        part: which rows it reads.
        statistic: from rows `(items, width)` to a number.
        higher_is_better: whether more is better.
    """

    label: str
    part: str
    statistic: Callable[[np.ndarray], float] = _mean
    higher_is_better: bool = True


FIGURES = {
    "similarity": Figure("similarity ↑", "similarity"),
    "attributes": Figure("attributes ↑", "attributes"),
    "frame": Figure("frame accuracy ↑", "frame"),
    "hero": Figure("hero identity ↑", "hero"),
    "agrees": Figure("agrees with text ↑", "agrees"),
    "frechet": Figure("Fréchet distance ↓", "features", _frechet, False),
    "bleu_1": Figure("BLEU-1 ↑", "bleu", _bleu(1)),
    "bleu_2": Figure("BLEU-2 ↑", "bleu", _bleu(2)),
    "rouge_l": Figure("ROUGE-L ↑", "rouge_l"),
    "s_bert": Figure("S-BERT ↑", "s_bert"),
    "text_accuracy": Figure("text accuracy ↑", "text_accuracy"),
    "mm_relevance": Figure("MM-Relevance ↑", "mm_relevance"),
    "picture_f1": Figure("picture F1 ↑", "decision", _decision),
}


@dataclass
class Rows:
    """Rows of one task's items by part, `(groups, items of a group, width)`: captions, stories or talks are groups."""

    parts: dict[str, np.ndarray]

    @property
    def counts(self) -> tuple[int, int]:
        """Number of groups and of items."""
        groups, each, _ = next(iter(self.parts.values())).shape
        return groups, groups * each

    def __contains__(self, figure: str) -> bool:
        return FIGURES[figure].part in self.parts

    def estimate(self, figure: str) -> float:
        """A figure alone."""
        return _flat(FIGURES[figure].statistic)(self.parts[FIGURES[figure].part])

    def interval(self, figure: str) -> Interval:
        """A figure with its bootstrap interval over groups."""
        return bootstrap_interval(self.parts[FIGURES[figure].part], _flat(FIGURES[figure].statistic))

    def minus(self, other: Rows, figure: str) -> Interval:
        """The paired difference of a figure to that of another system on the same items; above 0 this one is better."""
        taken = FIGURES[figure]
        sign = 1 if taken.higher_is_better else -1
        statistic = _flat(taken.statistic)
        return paired_difference(
            self.parts[taken.part], other.parts[taken.part], lambda groups: sign * statistic(groups)
        )

    def plain(self) -> dict[str, list]:
        """For JSON, which has no NaN: `None` in its place."""
        rounded = {name: np.round(rows.astype(float), 5).astype(object) for name, rows in self.parts.items()}
        return {name: np.where(rows != rows, cast(Any, None), rows).tolist() for name, rows in rounded.items()}

    @classmethod
    def read(cls, plain: dict[str, list]) -> Rows:
        """Back from `plain`."""
        return cls({name: np.array(rows, dtype=float) for name, rows in plain.items()})


def _flat(statistic: Callable[[np.ndarray], float]) -> Callable[[np.ndarray], float]:
    return lambda groups: statistic(groups.reshape(-1, groups.shape[-1]))


def measure(items: Sequence[Item], replies: ReplyFolder, truth: dict[str, Scene], judge: Judge) -> Rows:
    """Rows of replies to the items of one task.

    A picture that is wanted and missing shows nothing of what it should; one that is not wanted is not judged.

    Args:
        items: of groups that are equally large.
        truth: what each picture of the data set shows, by its path.

    Raises:
        FileNotFoundError: if a reply is missing.
        ValueError: if groups differ in size.
    """
    items = sorted(items, key=lambda item: (item.group, item.id))
    groups = [list(group) for _, group in groupby(items, key=lambda item: item.group)]
    sizes = {len(group) for group in groups}
    if len(sizes) != 1:
        raise ValueError(f"the groups of {items[0].task} have {sorted(sizes)} items; they must be equally large")
    given = [replies.read(item.id) for item in items]
    sentences = SentenceSimilarity()
    encoder = StandInEncoder(judge, sentences.model)
    parts = _picture_parts(items, given, truth, encoder)
    if any(item.sentence is None for item in items) and any(reply.text for reply in given):
        parts |= _text_parts(items, given, sentences)
    if items[0].image_mode == "auto":
        parts |= _dialogue_parts(groups, given, encoder)
    return Rows(
        {name: np.asarray(rows, dtype=float).reshape(len(groups), len(groups[0]), -1) for name, rows in parts.items()}
    )


def _picture_parts(
    items: Sequence[Item], replies: Sequence[Reply], truth: dict[str, Scene], encoder: StandInEncoder
) -> dict[str, np.ndarray]:
    judge, channels = encoder.judge, encoder.judge.config["channels"][-1]
    parts = {name: np.full((len(items), 1), np.nan) for name in ("similarity", "attributes", "frame", "hero", "agrees")}
    parts["features"] = np.full((len(items), 2 * channels), np.nan)
    for row, (item, reply) in enumerate(zip(items, replies, strict=True)):
        if item.picture is None:
            continue
        for name in ("similarity", "attributes", "frame", "hero", "agrees"):
            parts[name][row] = 0
        if not reply.paths:
            continue
        shown, true, scene = open_image(reply.paths[0]), open_image(item.picture), truth[item.picture]
        vectors, features = encoder.encode_pictures([shown, true]), last_features(judge, [shown, true])
        verdict = judge.read([shown])[0]
        *attributes, everything = verdict.compare(scene).values()
        parts["similarity"][row] = float(vectors[0] @ vectors[1])
        parts["attributes"][row] = np.mean(attributes)
        parts["frame"][row] = everything
        parts["hero"][row] = hero_kept(verdict, scene.hero)
        parts["agrees"][row] = text_agrees(reply.text if item.sentence is None else item.sentence, verdict)
        # Pooled over the picture, there are fewer features than pictures.
        parts["features"][row] = features.mean(dim=2).flatten().numpy()
    return parts


def _text_parts(
    items: Sequence[Item], replies: Sequence[Reply], sentences: SentenceSimilarity
) -> dict[str, np.ndarray]:
    texts, truths = [reply.text for reply in replies], [item.text for item in items]
    parts = {}
    for name, metric in (("bleu", WordBLEU()), ("rouge_l", RougeL()), ("s_bert", sentences)):
        metric.update(texts, truths)
        parts[name] = metric.items
    naming = [bool((told := read(text or "")).mentions or told.place or told.time) for text in truths]
    accuracy = TextAccuracy()
    accuracy.update(
        [text for text, names in zip(texts, naming, strict=True) if names],
        [text for text, names in zip(truths, naming, strict=True) if names],
    )
    parts["text_accuracy"] = np.full((len(items), 1), np.nan)
    parts["text_accuracy"][naming, 0] = accuracy.items[:, -1]
    return parts


def _dialogue_parts(
    groups: Sequence[Sequence[Item]], replies: Sequence[Reply], encoder: StandInEncoder
) -> dict[str, np.ndarray]:
    items = [item for group in groups for item in group]
    relevance, decision, rest = MMRelevancePerTurn(encoder), PictureDecision(), iter(replies)
    for group in groups:
        said = [(reply.text, next(iter(reply.pictures), None)) for _, reply in zip(group, rest, strict=False)]
        relevance.update([said], [[(item.text, item.picture and open_image(item.picture)) for item in group]])
    decision.update([bool(reply.paths) for reply in replies], [item.picture is not None for item in items])
    # A talk has one figure, noted with each of its turns; their mean is the mean over talks.
    each = np.repeat(relevance.items[:, :1], len(groups[0]), axis=0)
    return {"mm_relevance": each, "decision": decision.items}
