"""Tell a story for each opening of a JSON Lines file, a folder each.

    python pipelines/tell_stories.py --openings openings.jsonl --out stories/

A line is `{"opening": "It wakes up in the forest.", "image": "fox.png"}`; the image, of whom the story is about, is
optional, and its path is relative to the file.
"""

from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from minigpt5.loading import ModelSettings, open_model
from minigpt5.story import MOST_STEPS, RECORD, STORY_MODES, check_folder, tell_story, write_story
from minigpt5.utils.images import open_image
from minigpt5.utils.json_files import field, read_json_lines
from minigpt5.utils.programs import ProgramError, run_program
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class StoriesConfig(ModelSettings):
    """The stories."""

    openings: Path = setting(help="JSON Lines file of openings")
    out: Path = setting(help="gets the folders 001, 002, …")
    steps: int = setting(5, least=1, most=MOST_STEPS, help="most sentences of a story, the opening among them")
    image_mode: str = setting(
        "auto",
        choices=STORY_MODES,
        help="auto: a sentence to which the model paints no picture ends a story; always: each has one",
    )
    seed: int = setting(0, least=0, most=2**32 - 1, help="of the first story; each further one counts on from it")


def main(config: StoriesConfig):
    # All that is read and written is looked at before the model is opened: a picture that is missing, or a folder that
    # holds something else, should not end a long run half way.
    stories = []
    for place, line in read_json_lines(config.openings):
        opening = field(line, "opening", str, place)
        if not opening.strip():
            raise ProgramError(f"{place}: the opening is empty")
        named = field(line, "image", str, place) if line.get("image") else None
        out = config.out / f"{len(stories) + 1:03}"
        check_folder(out, RECORD)
        stories.append((opening, named and open_image(config.openings.parent / named), out))
    if not stories:
        raise ProgramError(f"{config.openings} has no openings")

    pipe = open_model(config.model, config.adapter)
    ended = 0
    for number, (opening, image, out) in enumerate(tqdm(stories, unit="story", disable=None)):
        seed = config.seed + number
        steps = list(tell_story(pipe, opening, image, config.steps, seed, config.image_mode))
        ended += len(steps) < config.steps
        settings = {"adapter": config.adapter and str(config.adapter), "image_mode": config.image_mode}
        unusual = {name: value for name, value in settings.items() if value not in (None, "auto")}
        write_story(out, opening, config.model, seed, steps, unusual)
    if ended:
        print(f"{ended} of {len(stories)} stories ended by themselves before step {config.steps}")


if __name__ == "__main__":
    run_program(main, StoriesConfig, __doc__)
