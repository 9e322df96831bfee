"""What a person may set, folded away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.service.engine import LARGEST_SEED
from minigpt5.story import STORY_MODES
from minigpt5.studio.turns import Choices
from minigpt5.utils.checks import whole_number
from minigpt5.vokens.decoding import IMAGE_MODES


class Controls:
    """Builds the settings into the `gr.Blocks` in progress; `components` are inputs of events, for `read`.

    Args:
        story: whether they are of a story, of which no step but its last is without a picture.
    """

    def __init__(self, pipe: MiniGPT5Pipeline, story: bool = False):
        own = pipe.config
        # A guider of diffusers has its scale itself.
        self.guided = pipe.guider is None
        with gr.Accordion("Settings", open=False), gr.Row():
            self.components = [
                gr.Number(None, label="Seed", info="empty: a new one each time", precision=0, minimum=0, min_width=120),
                gr.Slider(
                    1, 100, own["num_inference_steps"], step=1, label="Steps", info="of a picture", min_width=160
                ),
                gr.Slider(
                    0,
                    20,
                    own["guidance_scale"],
                    step=0.1,
                    label="Guidance",
                    info="up to 1: none",
                    visible=self.guided,
                    min_width=160,
                ),
                gr.Slider(0, 2, 0, step=0.05, label="Temperature", info="0: the likeliest words", min_width=160),
                gr.Radio(
                    list(STORY_MODES if story else IMAGE_MODES),
                    value="auto",
                    label="Pictures",
                    info="auto: the story may end without one" if story else "auto: the model's choice",
                ),
            ]

    def read(self, values: Sequence[Any]) -> Choices:
        """What is set.

        Raises:
            gr.Error: for a seed out of its range.
        """
        seed, steps, guidance, temperature, image_mode = values
        try:
            seed = None if seed is None else whole_number("seed", seed, 0, LARGEST_SEED)
        except (TypeError, ValueError) as error:
            raise gr.Error(str(error), print_exception=False) from None
        return Choices(seed, int(steps), guidance if self.guided else None, temperature, image_mode)
