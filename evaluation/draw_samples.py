"""Draw the pictures of the documentation: a grid painted from fresh captions, and a story as a strip.

python evaluation/draw_samples.py --model storyworld-mini --out docs/images
"""

import argparse
from pathlib import Path

from diffusers.utils import make_image_grid
from PIL import Image

from minigpt5.data.tasks import illustrate
from minigpt5.evaluation.systems import open_pipeline
from minigpt5.story import tell_story
from minigpt5.storyworld.examine import ask, fresh_captions, sample_scenes
from minigpt5.utils.images import open_image
from minigpt5.utils.logs import quiet_libraries

ROWS, COLUMNS = 5, 10


def main():
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="storyworld-mini", help="pipeline folder, or the name of a shipped model")
    parser.add_argument("--adapter", type=Path, help="folder of what training made beside that model")
    parser.add_argument("--out", type=Path, required=True, help="folder for painted.png, its captions, and story.png")
    arguments = parser.parse_args()
    pipe = open_pipeline(arguments.model, arguments.adapter)

    captions = fresh_captions(sample_scenes(ROWS * COLUMNS, companion_share=0.4))
    _, pictures = ask(pipe, [illustrate([], [], caption) for caption in captions])
    make_image_grid(pictures, ROWS, COLUMNS, resize=128).save(arguments.out / "painted.png")
    (arguments.out / "painted.txt").write_text("\n".join(captions) + "\n")

    fox = open_image(arguments.out / "fox.png")
    steps = list(tell_story(pipe, "A red fox wakes up in the forest.", fox))
    enlarged = [step.image.resize((192, 192), Image.Resampling.NEAREST) for step in steps]
    make_image_grid(enlarged, 1, len(steps)).save(arguments.out / "story.png")
    for step in steps:
        print(f"{step.index}. {step.text}")


if __name__ == "__main__":
    main()
