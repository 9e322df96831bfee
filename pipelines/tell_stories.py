"""Tell a story for each opening of a JSON Lines file, a folder each.

    python pipelines/tell_stories.py --openings openings.jsonl --out stories/

A line is `{"opening": "It wakes up in the forest.", "image": "fox.png"}`; the image, of whom the story is about, is
optional, and its path is relative to the file.
"""

import argparse
from pathlib import Path

import torch
from tqdm import tqdm

from minigpt5 import MiniGPT5Pipeline
from minigpt5.story import tell_story, write_story
from minigpt5.utils.images import open_image
from minigpt5.utils.json_files import field, read_json_lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openings", type=Path, required=True, help="JSON Lines file of openings")
    parser.add_argument("--out", type=Path, required=True, help="gets the folders 001, 002, …")
    parser.add_argument("--model", default="storyworld-mini")
    parser.add_argument("--adapter", type=Path, help="folder of what training made beside that model")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the first story; each further one counts on from it")
    arguments = parser.parse_args()

    lines = list(read_json_lines(arguments.openings))
    openings = [field(item, "opening", str, place) for place, item in lines]
    # All pictures are opened before the model is: a missing one should not end a long run half way.
    folder = arguments.openings.parent
    images = [
        open_image(folder / field(item, "image", str, place)) if item.get("image") else None for place, item in lines
    ]

    pipe = MiniGPT5Pipeline.from_pretrained(arguments.model)
    if arguments.adapter:
        pipe.load_adapter(arguments.adapter)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    pipe.set_progress_bar_config(disable=True)
    for number, (opening, image) in enumerate(zip(tqdm(openings, unit="story"), images, strict=True)):
        seed = arguments.seed + number
        steps = list(tell_story(pipe, opening, image, arguments.steps, seed))
        write_story(arguments.out / f"{number + 1:03}", opening, arguments.model, seed, steps)


if __name__ == "__main__":
    main()
