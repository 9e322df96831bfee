"""How systems are asked, in batches, and the simplest of their marks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from minigpt5.evaluation.baselines import ZeroShotDiffusion
from minigpt5.evaluation.claims.world import Question
from minigpt5.metrics.text import RougeL
from minigpt5.storyworld.judge import ATTRIBUTES, Judge, Verdict
from minigpt5.storyworld.scene import Scene

BATCH = 50
MAX_NEW_TOKENS = 40

Reply = tuple[str, "Image.Image | None"]


@torch.no_grad()
def ask(system: Any, questions: Sequence[Question], seed: int = 0, **options: Any) -> list[Reply]:
    """Replies of a pipeline or baseline: each its text and its picture, if there is one.

    Diffusion alone is given what is to be painted and nothing else. The noise is that of the question's place and of
    `seed`, whichever system is asked.

    Args:
        options: of the system's call.
    """
    replies: list[Reply] = []
    for start in range(0, len(questions), BATCH):
        batch = questions[start : start + BATCH]
        noise = [torch.Generator().manual_seed(seed * 100_003 + start + i) for i in range(len(batch))]
        if isinstance(system, ZeroShotDiffusion):
            captions = [question.sentence or "" for question in batch]
            replies += [("", image) for image in system.paint(captions, generator=noise, **options)]
            continue
        output = system(
            [question.messages for question in batch],
            generator=noise,
            image_mode=options.get("image_mode", batch[0].image_mode),
            max_images=1,
            max_new_tokens=MAX_NEW_TOKENS,
            **{name: value for name, value in options.items() if name != "image_mode"},
        )
        replies += [(text, next(iter(images), None)) for text, images in zip(output.text, output.images, strict=True)]
    return replies


def _verdicts(judge: Judge, pictures: Sequence[Image.Image | None]) -> Iterator[Verdict | None]:
    """What the judge reads off each; `None` for one that is missing."""
    read = iter(judge.read([picture for picture in pictures if picture is not None]))
    return (None if picture is None else next(read) for picture in pictures)


def frames_right(judge: Judge, pictures: Sequence[Image.Image | None], scenes: Sequence[Scene]) -> list[float]:
    """Of each picture whether all that it shows is right; one that is missing shows nothing."""
    verdicts = _verdicts(judge, pictures)
    return [float(bool(one) and one.compare(scene)["all"]) for one, scene in zip(verdicts, scenes, strict=True)]


def right_above_chance(judge: Judge, pictures: Sequence[Image.Image | None], scenes: Sequence[Scene]) -> list[float]:
    """Of each picture the share of its attributes that is right, above the same by the truths of all other items.

    What is painted without regard to what was asked has 0 on average, and so has a picture that is missing. It tells
    sooner than whole frames whether a training still learns.
    """
    found = []
    for i, verdict in enumerate(_verdicts(judge, pictures)):
        if verdict is None:
            found.append(0.0)
            continue
        compared = [verdict.compare(scene) for scene in scenes]
        shares = np.array([[one[name] for name in ATTRIBUTES] for one in compared]).mean(axis=1)
        found.append(float(shares[i] - np.delete(shares, i).mean()))
    return found


def texts_right(texts: Sequence[str], truths: Sequence[str]) -> list[float]:
    """ROUGE-L of each text."""
    metric = RougeL()
    metric.update(list(texts), list(truths))
    return metric.items[:, 0].tolist()
