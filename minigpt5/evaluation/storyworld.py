"""The StoryWorld judge's figures of replies to data that StoryWorld wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from minigpt5.evaluation.baselines import ZeroShotDiffusion
from minigpt5.evaluation.items import Item
from minigpt5.evaluation.measure import Column, Measurements
from minigpt5.evaluation.replies import Reply
from minigpt5.metrics import storyworld_bounds
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.storyworld.examine import text_agrees
from minigpt5.storyworld.judge import ATTRIBUTES, load_judge
from minigpt5.storyworld.language import read
from minigpt5.storyworld.marks import MARKS, conclusion
from minigpt5.storyworld.scene import COLOURS, KINDS, PLACES, SIDES, TIMES, Character, Scene
from minigpt5.utils.images import open_image
from minigpt5.utils.json_files import read_json, shortened


def read_truth(root: str | Path, split: str) -> dict[str, Scene]:
    """What each picture shows, by its path.

    Raises:
        FileNotFoundError: if the data set is none that StoryWorld wrote.
        ValueError: if what it wrote is broken; names the file and the picture.
    """
    path = Path(root) / f"{split}_truth.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: the judge can only mark data of training/export_storyworld.py")
    scenes = {}
    for name, entry in read_json(path).items():
        try:
            hero, companion = Character(**entry.pop("hero")), entry.pop("companion")
            scene = Scene(hero, companion=companion and Character(**companion), **entry)
            known = all(who.kind in KINDS and who.colour in COLOURS for who in scene.characters)
            if not (known and scene.side in SIDES and scene.place in PLACES and scene.time in TIMES):
                raise ValueError
        except (TypeError, ValueError, AttributeError, KeyError):
            raise ValueError(f"{path}: {shortened(name)} is no scene of StoryWorld") from None
        scenes[str(Path(root) / name)] = scene
    return scenes


def check_marked(items: Sequence[Item], data: Path) -> None:
    """See that StoryWorld's judge does not find silence right.

    Raises:
        ValueError: naming the first reply that names nothing which its kind is marked by.
    """
    for item in items:
        if item.task in MARKS and MARKS[item.task]("", item.text or ""):
            told = f"the reply {shortened(item.text)} names nothing that a reply of the kind {item.task} is marked by"
            raise ValueError(f"{data}, {item.id}: {told}")


def storyworld_columns(truth: Mapping[str, Scene]) -> dict[str, Column]:
    """What the judge's metrics need of items and replies.

    Args:
        truth: what each picture of the data set shows, by its path.
    """
    return {
        "judged picture": lambda item, reply: reply.paths[0] if item.picture in truth and reply.paths else None,
        "scene": lambda item, reply: truth.get(item.picture or ""),
        "hero": lambda item, reply: scene.hero if (scene := truth.get(item.picture or "")) else None,
        "kind": lambda item, reply: item.task if item.task in MARKS else None,
        # Replies to questions have marks of their own.
        "naming text": lambda item, reply: item.text if item.task not in MARKS and _names(item.text or "") else None,
    }


class StoryWorldJudge:
    """The judge that ships, for data that StoryWorld wrote.

    Criteria: "Picture", whether a picture shows all of the scene that is wanted; "Attributes", the share of kind,
    colour, side, place and time that are right; "Image-Text Coherency", whether it shows all that the reply's own text
    names in the end. A picture that is wanted and missing is wrong.

    Args:
        truth: what each picture of the data set shows, by its path.
    """

    name = "StoryWorld's judge"

    def __init__(self, truth: Mapping[str, Scene]):
        self.truth, self.judge = truth, load_judge()

    def score(self, item: Item, reply: Reply) -> dict[str, float]:
        """See `minigpt5.evaluation.judges.Judge`; of the first picture."""
        scene = self.truth.get(item.picture or "")
        if not reply.paths:
            return {} if scene is None else {"Picture": 0.0, "Attributes": 0.0}
        (verdict,) = self.judge.read([open_image(reply.paths[0])])
        scores = {}
        if scene is not None:
            right = verdict.compare(scene)
            scores = {
                "Picture": float(right["all"]),
                "Attributes": float(np.mean([right[name] for name in ATTRIBUTES])),
            }
        told = conclusion(reply.text)
        if _names(told):
            scores["Image-Text Coherency"] = float(text_agrees(told, verdict))
        return scores


def judged_bounds(measurements: Measurements) -> dict[str, dict[str, dict[str, float]]]:
    """By task, what the judge's figures of pictures lie between; without tasks of fewer than two pictures."""
    bounds = {}
    for task in measurements.tasks.values():
        columns = [task.column(name, measurements.columns) for name in ("judged picture", "scene")]
        shown = [(open_image(path), scene) for path, scene in zip(*columns, strict=True) if path is not None]
        if len(shown) > 1:
            bounds[task.name] = storyworld_bounds(*zip(*shown, strict=True))
    return bounds


def paint_alone(pipe: MiniGPT5Pipeline, captions: Sequence[str], batch_size: int = 50) -> list[Image.Image]:
    """Pictures by a pipeline's diffusion model through its own text encoder, a batch at a time."""
    painter, pictures = ZeroShotDiffusion(pipe), []
    for start in range(0, len(captions), batch_size):
        batch = captions[start : start + batch_size]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(batch))]
        pictures += painter.paint(batch, generator=generators)
    return pictures


def _names(text: str) -> bool:
    reading = read(text)
    return bool(reading.mentions or reading.place or reading.time)
