"""What StoryWorld, whose ground truth is known, adds to the training of vokens: plain words, a naming head, figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import nn

from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.storyworld.examine import examine_next_step, examine_painting, examine_stories, sample_scenes
from minigpt5.storyworld.judge import NamingHead, load_judge
from minigpt5.storyworld.language import plain_caption
from minigpt5.storyworld.scene import Scene
from minigpt5.utils.images import Picture


class Coach(nn.Module):
    """Tells what the pictures to be painted show, and whether the voken features name it.

    Args:
        naming_weight: of the naming head's loss; a small model learns to gather a description much faster with it.
        judge: folder of the judge, in place of the shipped one.
    """

    def __init__(self, pipe: MiniGPT5Pipeline, naming_weight: float, judge: Path | None = None):
        super().__init__()
        self.naming_weight = naming_weight
        self.namer = NamingHead(pipe.reader.n_vokens * pipe.mapper.config.voken_dim)
        # In a list, so that it is not a part that trains.
        self._judge = [load_judge(judge)]

    def instruct(self, targets: Sequence[Picture]) -> tuple[list[str], Callable[[torch.Tensor], torch.Tensor]]:
        """One plain caption a picture, however it was told of, and the naming loss of its voken features.

        The judge reads the pictures: renders, which it never misreads.
        """
        scenes = [cast(Scene, verdict.scene) for verdict in self._judge[0].read(list(targets))]
        captions = [plain_caption(scene) for scene in scenes]
        return captions, lambda features: self.naming_weight * self.namer.loss(features, scenes)

    def examine_captions(self, pipe: MiniGPT5Pipeline, count: int) -> dict[str, float]:
        """Accuracy of pictures painted from validation captions, of one and of two characters."""
        both = {"one": False, "two": True}
        scenes = {name: sample_scenes(count, "validation", companion=companion) for name, companion in both.items()}
        return {name: examine_painting(pipe, these, self._judge[0])["all"] for name, these in scenes.items()}

    def examine_stories(self, pipe: MiniGPT5Pipeline, count: int) -> dict[str, float]:
        """Figures of validation stories: next steps, free-running ones, and captions of one character."""
        judge = self._judge[0]
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
