"""Draw the pictures of the documentation: a grid painted from fresh captions, and the story of `make story` as a strip.

python evaluation/draw_samples.py --model storyworld-mini --out docs/images
"""

from dataclasses import dataclass
from pathlib import Path

from diffusers.utils import make_image_grid
from PIL import Image

from minigpt5.loading import ModelSettings, open_model
from minigpt5.story import tell_story
from minigpt5.storyworld.examine import fresh_captions, paint_captions, sample_scenes
from minigpt5.utils.files import write_picture, write_text
from minigpt5.utils.images import open_image
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import setting

ROWS, COLUMNS = 5, 10


@dataclass(kw_only=True)
class SamplesConfig(ModelSettings):
    """What is drawn."""

    out: Path = setting(help="folder with fox.png; gets painted.webp, its captions, and story.webp")


def main(config: SamplesConfig):
    fox = open_image(config.out / "fox.png")
    pipe = open_model(config.model, config.adapter)
    captions = fresh_captions(sample_scenes(ROWS * COLUMNS, companion_share=0.4))
    pictures = paint_captions(pipe, captions)
    steps = list(tell_story(pipe, "A red fox wakes up in the forest.", fox, seed=3, do_sample=True))
    enlarged = [step.image.resize((192, 192), Image.Resampling.LANCZOS) for step in steps if step.image]

    write_picture(config.out / "painted.webp", make_image_grid(pictures, ROWS, COLUMNS, resize=128))
    write_text(config.out / "painted.txt", "\n".join(captions) + "\n")
    write_picture(config.out / "story.webp", make_image_grid(enlarged, 1, len(steps)))
    for step in steps:
        print(f"{step.index}. {step.text}")


if __name__ == "__main__":
    run_program(main, SamplesConfig, __doc__)
