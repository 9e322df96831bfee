"""The judge: a small classifier, trained on renders alone, that reads off a picture what it shows.

It reads, for each of the three sides, which animal of which colour stands there or that none does, and place and time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import nn
from torch.nn.functional import cross_entropy

from minigpt5.storyworld.scene import COLOURS, KINDS, PLACES, SIDES, TIMES, Character, Scene
from minigpt5.utils.images import Picture, to_tensor
from minigpt5.utils.integrity import load_whole
from minigpt5.weights import SHIPPED

WEIGHTS = SHIPPED / "storyworld-judge"
NOBODY = "nobody"
ATTRIBUTES = ("kind", "colour", "side", "place", "time")

# One question a head: its name and its possible answers.
QUESTIONS: dict[str, tuple[str, ...]] = {}
for _side in SIDES:
    QUESTIONS[f"kind {_side}"] = (NOBODY, *KINDS)
    QUESTIONS[f"colour {_side}"] = (NOBODY, *COLOURS)
QUESTIONS |= {"place": PLACES, "time": TIMES}
NUM_OPTIONS = sum(len(options) for options in QUESTIONS.values())


@dataclass(frozen=True)
class Verdict:
    """What the judge read off one picture."""

    slots: dict[str, Character | None]
    place: str
    time: str

    @property
    def characters(self) -> tuple[Character, ...]:
        """Who is there, from left to right."""
        return tuple(character for character in self.slots.values() if character)

    @property
    def scene(self) -> Scene | None:
        """The scene that was read, the character furthest left its hero; `None` where nobody or a crowd is there."""
        if not 1 <= len(self.characters) <= 2 or (len(self.characters) == 2 and self.slots["middle"]):
            return None
        side = next(side for side in SIDES if self.slots[side])
        companion = self.characters[1] if len(self.characters) == 2 else None
        return Scene(self.characters[0], side, self.place, self.time, companion)

    def compare(self, scene: Scene) -> dict[str, bool]:
        """For each attribute whether it is that of `scene`; "all" says whether everything is.

        Kinds and colours are compared from left to right, whatever the exact sides; sides by which are taken.
        """
        truth = scene.slots
        there = [character for character in truth.values() if character]
        right = {
            "kind": [character.kind for character in self.characters] == [character.kind for character in there],
            "colour": [character.colour for character in self.characters] == [character.colour for character in there],
            "side": all((truth[side] is None) == (self.slots[side] is None) for side in SIDES),
            "place": self.place == scene.place,
            "time": self.time == scene.time,
        }
        return right | {"all": all(right.values())}


def answers(scene: Scene) -> list[int]:
    """The index of the right answer to each of `QUESTIONS`."""
    named = {"place": scene.place, "time": scene.time}
    for side, character in scene.slots.items():
        named[f"kind {side}"] = character.kind if character else NOBODY
        named[f"colour {side}"] = character.colour if character else NOBODY
    return [options.index(named[question]) for question, options in QUESTIONS.items()]


def question_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Cross-entropy summed over questions, of logits `(batch, all options)` and targets `(batch, questions)`."""
    pairs = zip(split_questions(logits), targets.T, strict=True)
    return torch.stack([cross_entropy(question, target) for question, target in pairs]).sum()


def split_questions(logits: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Logits of all questions side by side, taken apart."""
    return logits.split([len(options) for options in QUESTIONS.values()], dim=1)


class NamingHead(nn.Linear):
    """A linear head that has to name a scene from features of it; thrown away after training.

    It gives the features something to gather long before the loss that they are for can.
    """

    def __init__(self, width: int):
        super().__init__(width, NUM_OPTIONS)

    def loss(self, features: torch.Tensor, scenes: Sequence[Scene]) -> torch.Tensor:
        """`question_loss` of features `(scenes, ...)`, flattened to `(scenes, width)`."""
        truths = torch.tensor([answers(scene) for scene in scenes], device=features.device)
        return question_loss(self(features.flatten(1)), truths)


class Judge(ModelMixin, ConfigMixin):
    """Convolutions down to 4×4 and one linear layer for all questions. Reads 64×64 pictures in [-1, 1]."""

    @register_to_config
    def __init__(self, channels: tuple[int, ...] = (24, 48, 64, 96), image_size: int = 64):
        super().__init__()
        layers: list[nn.Module] = []
        width = 3
        for out in channels:
            layers += [nn.Conv2d(width, out, 3, padding=1), nn.BatchNorm2d(out), nn.ReLU(), nn.MaxPool2d(2)]
            width = out
        self.features = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.1))
        cells = (image_size // 2 ** len(channels)) ** 2
        self.head = nn.Linear(width * cells, NUM_OPTIONS)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits `(batch, all options)` from pixels `(batch, 3, 64, 64)` in [-1, 1]."""
        return self.head(self.features(pixels))

    @torch.no_grad()
    def read(self, pictures: list[Picture]) -> list[Verdict]:
        """Read any number of pictures of any size."""
        size = self.config["image_size"]
        verdicts = []
        for start in range(0, len(pictures), 256):
            batch = torch.stack([to_tensor(picture, size) for picture in pictures[start : start + 256]])
            logits = self(batch.to(self.device, self.dtype))
            chosen = torch.stack([question.argmax(1) for question in split_questions(logits)], dim=1).tolist()
            verdicts += [self._verdict(row) for row in chosen]
        return verdicts

    @staticmethod
    def _verdict(row: list[int]) -> Verdict:
        named = {question: options[i] for (question, options), i in zip(QUESTIONS.items(), row, strict=True)}
        slots = {}
        for side in SIDES:
            kind, colour = named[f"kind {side}"], named[f"colour {side}"]
            slots[side] = None if NOBODY in (kind, colour) else Character(kind, colour)
        return Verdict(slots, named["place"], named["time"])


@lru_cache(maxsize=1)
def load_judge(folder: str | Path | None = None) -> Judge:
    """The judge in `folder`, by default the one that ships with the package, in fp32."""
    return load_whole(Judge, folder or WEIGHTS).float().eval()


def judge_accuracy(verdicts: list[Verdict], scenes: list[Scene]) -> dict[str, float]:
    """The share of pictures for which each attribute, and all of them ("all"), is right."""
    compared = [verdict.compare(scene) for verdict, scene in zip(verdicts, scenes, strict=True)]
    return {name: sum(row[name] for row in compared) / len(compared) for name in (*ATTRIBUTES, "all")}
