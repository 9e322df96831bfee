"""Figures of replies, kept as rows so that systems can be compared item by item and seed by seed.

Weights of CLIP and Inception cannot be had everywhere, and know nothing of a drawn world. The judge stands in for
them: the cosine of its last features for CLIP-I, the Fréchet distance over them for FID, and for CLIP's common space
of texts and pictures the attributes that it reads off a picture and StoryWorld's language off a text.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import nn

from minigpt5.evaluation.claims.asking import Reply, texts_right
from minigpt5.evaluation.claims.world import Question, picture
from minigpt5.metrics import MMRelevanceMMDialog, MMRelevancePerTurn, PictureDecision, TextAccuracy
from minigpt5.storyworld.examine import hero_kept, text_agrees
from minigpt5.storyworld.judge import Judge
from minigpt5.storyworld.language import read
from minigpt5.storyworld.scene import COLOURS, KINDS, PLACES, SIDES, TIMES, Scene
from minigpt5.utils.images import Picture, to_tensor

_WORDS = (*KINDS, *COLOURS, *SIDES, *PLACES, *TIMES)


class AttributeEncoder(nn.Module):
    """Texts and pictures as unit vectors of what they name or show, in one space; what names nothing is zero."""

    def __init__(self, judge: Judge):
        super().__init__()
        self.judge = judge

    def encode_pictures(self, pictures: Sequence[Picture]) -> torch.Tensor:
        """`(pictures, attributes)`, by what the judge reads."""
        rows = []
        for verdict in self.judge.read(list(pictures)):
            told = [word for who in verdict.characters for word in (who.kind, who.colour)]
            rows.append(_unit([*told, *(side for side in SIDES if verdict.slots[side]), verdict.place, verdict.time]))
        return torch.stack(rows)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """`(texts, attributes)`, by what StoryWorld's language reads."""
        rows = []
        for text in texts:
            told = read(text)
            named = [word for one in told.mentions for word in (one.kind, one.colour, one.side)]
            rows.append(_unit([*named, told.place, told.time]))
        return torch.stack(rows)


def _unit(words: Sequence[str | None]) -> torch.Tensor:
    row = torch.tensor([float(word in words) for word in _WORDS])
    return row / row.norm().clamp(min=1e-9)


@torch.no_grad()
def last_features(judge: Judge, pictures: Sequence[Picture]) -> torch.Tensor:
    """What the judge's linear layer reads: `(pictures, channels, cells)`."""
    pixels = torch.stack([to_tensor(one, judge.config["image_size"]) for one in pictures])
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
    """Of the items that have a value."""
    return float(np.nanmean(rows)) if not np.isnan(rows).all() else float("nan")


def _frechet(rows: np.ndarray) -> float:
    there = rows[~np.isnan(rows).any(axis=1)]
    half = there.shape[1] // 2
    return frechet_distance(there[:, :half], there[:, half:])


def _decision(rows: np.ndarray) -> float:
    return PictureDecision().summarise(rows)["picture_f1"]


@dataclass(frozen=True)
class Figure:
    """How a figure is taken of rows.

    Args:
        label: for tables.
        part: which rows it reads.
        statistic: from rows `(items, width)` of one run to a number.
        sign: 1 where more is better, else -1.
        stands_for: the paper's metric that it takes the place of.
    """

    label: str
    part: str
    statistic: Callable[[np.ndarray], float] = _mean
    sign: int = 1
    stands_for: str = ""

    def of_runs(self, rows: np.ndarray) -> float:
        """The mean over runs of rows `(runs, groups, items of a group, width)`."""
        return float(np.mean([self.statistic(run.reshape(-1, run.shape[-1])) for run in rows]))


FIGURES = {
    "frame": Figure("frame accuracy ↑", "frame", stands_for="people's choice, and CLIP-I: all that is shown is right"),
    "shuffled": Figure("frame accuracy by another item's truth", "shuffled"),
    "similarity": Figure("similarity ↑", "similarity", stands_for="CLIP-I"),
    "frechet": Figure("Fréchet distance ↓", "features", _frechet, -1, "FID"),
    "agrees": Figure("agrees with text ↑", "agrees", stands_for="CLIP-T"),
    "hero": Figure("hero identity ↑", "hero", stands_for="people's choice of coherence"),
    "kept": Figure("hero and place ↑", "kept", stands_for="people's choice of coherence"),
    "rouge_l": Figure("ROUGE-L ↑", "rouge_l", stands_for="ROUGE-L itself, and S-BERT, METEOR"),
    "text_accuracy": Figure("text accuracy ↑", "text_accuracy", stands_for="people's choice of language continuity"),
    "mm_turn": Figure("MM-Relevance, per turn ↑", "mm_turn", stands_for="MM-Relevance as MiniGPT-5 published it"),
    "mm_mmdialog": Figure("MM-Relevance, MMDialog ↑", "mm_mmdialog", stands_for="MM-Relevance as MMDialog defines it"),
    "picture_f1": Figure("picture F1 ↑", "decision", _decision, stands_for="where pictures are placed"),
}

Rows = dict[str, np.ndarray]
"""Of one run and task by part: `(groups, items of a group, width)`; captions, stories or talks are groups."""


def plain(rows: Rows) -> dict[str, list]:
    """For JSON, which has no NaN: `None` in its place."""
    rounded = {name: np.round(part.astype(float), 5).astype(object) for name, part in rows.items()}
    return {name: np.where(part != part, cast(Any, None), part).tolist() for name, part in rounded.items()}


def from_plain(given: dict[str, list]) -> Rows:
    """Back from `plain`."""
    return {name: np.array(part, dtype=float) for name, part in given.items()}


def measure(questions: Sequence[Question], replies: Sequence[Reply], judge: Judge) -> Rows:
    """Rows of the replies to the questions of one task.

    A picture that is wanted and missing shows nothing of what it should; one that is not wanted is not judged.

    Raises:
        ValueError: if groups differ in size, or replies are missing.
    """
    groups = {question.group for question in questions}
    each, rest = divmod(len(questions), len(groups))
    if rest or any(sum(question.group == group for question in questions) != each for group in groups):
        raise ValueError(f"{len(questions)} questions of {len(groups)} groups; groups must be equally large")
    if len(replies) != len(questions):
        raise ValueError(f"{len(questions)} questions have {len(replies)} replies")
    parts = _pictures(questions, replies, judge)
    if any(question.sentence is None for question in questions):
        parts |= _texts(questions, replies)
    if questions[0].image_mode == "auto":
        parts |= _talks(questions, replies, AttributeEncoder(judge), each)
    return {name: np.asarray(rows, dtype=float).reshape(len(groups), each, -1) for name, rows in parts.items()}


def _pictures(questions: Sequence[Question], replies: Sequence[Reply], judge: Judge) -> dict[str, np.ndarray]:
    channels = judge.config["channels"][-1]
    names = ("frame", "similarity", "agrees", "hero", "kept", "shuffled")
    parts = {name: np.full((len(questions), 1), np.nan) for name in names}
    parts["features"] = np.full((len(questions), 2 * channels), np.nan)
    wanted = [i for i, question in enumerate(questions) if question.scene is not None]
    for name in names:
        parts[name][wanted] = 0
    rows = [i for i in wanted if replies[i][1] is not None]
    if not rows:
        return parts
    shown = [cast(Image.Image, replies[i][1]) for i in rows]
    true = [cast(Scene, questions[i].scene) for i in rows]
    ours, theirs = (last_features(judge, given) for given in (shown, [picture(scene) for scene in true]))
    near = torch.cosine_similarity(ours.flatten(1), theirs.flatten(1))
    # Pooled over the picture, there are fewer features than pictures.
    parts["features"][rows] = torch.cat([ours.mean(2), theirs.mean(2)], dim=1).numpy()
    parts["similarity"][rows, 0] = near.numpy()
    others = [*true[1:], true[0]]
    for i, verdict, scene, other in zip(rows, judge.read(cast(Any, shown)), true, others, strict=True):
        text = questions[i].sentence
        parts["frame"][i] = verdict.compare(scene)["all"]
        parts["shuffled"][i] = verdict.compare(other)["all"]
        parts["hero"][i] = hero_kept(verdict, scene.hero)
        parts["kept"][i] = hero_kept(verdict, scene.hero) and verdict.place == scene.place
        parts["agrees"][i] = text_agrees(replies[i][0] if text is None else text, verdict)
    return parts


def _texts(questions: Sequence[Question], replies: Sequence[Reply]) -> dict[str, np.ndarray]:
    said, truths = [text for text, _ in replies], [question.text or "" for question in questions]
    naming = [bool((told := read(text)).mentions or told.place or told.time) for text in truths]
    accuracy = TextAccuracy()
    accuracy.update(
        [text for text, names in zip(said, naming, strict=True) if names],
        [text for text, names in zip(truths, naming, strict=True) if names],
    )
    right = np.full((len(questions), 1), np.nan)
    right[naming, 0] = accuracy.items[:, -1]
    return {"rouge_l": np.array(texts_right(said, truths))[:, None], "text_accuracy": right}


def _talks(
    questions: Sequence[Question], replies: Sequence[Reply], encoder: AttributeEncoder, each: int
) -> dict[str, np.ndarray]:
    turns, elements, decision = MMRelevancePerTurn(encoder), MMRelevanceMMDialog(encoder), PictureDecision()
    truths = [(question.text or "", question.scene and picture(question.scene)) for question in questions]
    for start in range(0, len(questions), each):
        turns.update([list(replies[start : start + each])], [truths[start : start + each]])
    listed = [[[part for part in pair if part] for pair in pairs] for pairs in (replies, truths)]
    elements.update(*cast(Any, listed))
    decision.update([image is not None for _, image in replies], [scene is not None for _, scene in truths])
    # A talk has one figure by turns, noted with each of them; their mean is the mean over talks.
    by_turn = np.repeat(turns.items[:, :1], each, axis=0)
    return {"mm_turn": by_turn, "mm_mmdialog": elements.items[:, :1] / 100, "decision": decision.items}
