"""What StoryWorld, whose ground truth is known, adds to the training of vokens: plain words, a naming head, figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, cast

import torch
from PIL import Image

from minigpt5.data.mixture import TASKS
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.storyworld.examine import examine_next_step, examine_painting, examine_stories, sample_scenes
from minigpt5.storyworld.judge import NamingHead, load_judge
from minigpt5.storyworld.language import plain_caption
from minigpt5.storyworld.scene import Scene
from minigpt5.training.objective import Coach
from minigpt5.utils.settings import Settings, setting


@dataclass(kw_only=True)
class CoachSettings(Settings):
    """The coach."""

    # The judge reads what a picture shows, whatever task it is of.
    captioned: ClassVar[Sequence[str]] = tuple(TASKS)

    naming_weight: float = setting(0.05, least=0, help="of the naming head's loss")
    judge: Path | None = setting(None, help="the judge's folder, in place of the shipped one", rejudge=True)
    judged: int = setting(50, least=1, help="validation captions or stories of an evaluation", rejudge=True)


class StoryWorldCoach(Coach):
    """Tells what the pictures to be painted show, and whether the voken features name it.

    A small model learns to gather a description much faster with the naming head's loss.
    """

    def __init__(self, pipe: MiniGPT5Pipeline, settings: CoachSettings):
        super().__init__()
        self.naming_weight, self.count = settings.naming_weight, settings.judged
        self.namer = NamingHead(pipe.reader.n_vokens * pipe.mapper.config.voken_dim)
        # In a list, so that it is not a part that trains.
        self._judge = [load_judge(settings.judge)]
        self.to(pipe.device)

    def describe(self, pictures: Sequence[Image.Image]) -> tuple[list[str], list[Scene]]:
        """One plain caption a picture, however it was told of: vokens carry meaning, not wording.

        The judge reads the pictures: renders, which it never misreads.
        """
        scenes = [cast(Scene, verdict.scene) for verdict in self._judge[0].read(list(pictures))]
        return [plain_caption(scene) for scene in scenes], scenes

    def loss(self, features: torch.Tensor, told: list[Scene]) -> torch.Tensor:
        """The naming head's."""
        return self.naming_weight * self.namer.loss(features.float(), told)


class CaptionCoach(StoryWorldCoach):
    """Examines pictures painted from captions."""

    def examine(self, pipe: MiniGPT5Pipeline) -> dict[str, float]:
        """Accuracy of pictures painted from validation captions, of one and of two characters."""
        both = {"one": False, "two": True}
        scenes = {name: sample_scenes(self.count, "validation", companion=two) for name, two in both.items()}
        return {name: examine_painting(pipe, these, self._judge[0])["all"] for name, these in scenes.items()}


class StoryCoach(StoryWorldCoach):
    """Examines stories."""

    def examine(self, pipe: MiniGPT5Pipeline) -> dict[str, float]:
        """Figures of validation stories: next steps, free-running ones, and captions of one character."""
        judge, count = self._judge[0], self.count
        said = examine_next_step(pipe, count, True, "validation", judge)
        shown = examine_next_step(pipe, count, False, "validation", judge)
        free = examine_stories(pipe, max(count // 2, 2), "validation", judge)
        scenes = sample_scenes(count, "validation", companion=False)
        return {
            "all_five": free["hero_in_all"],
            "said": said["hero"],
            "shown": shown["hero"],
            "agrees": (said["agrees"] + shown["agrees"]) / 2,
            "one": examine_painting(pipe, scenes, judge)["all"],
        }
