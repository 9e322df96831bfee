"""Stories, told step by step by the model itself, and the folder that one is written to."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from minigpt5.utils.checks import one_of, some_text, whole_number
from minigpt5.utils.files import check_place, to_json, whole_folder
from minigpt5.utils.html import story_html
from minigpt5.utils.json_files import read_json

if TYPE_CHECKING:
    from PIL import Image

    from minigpt5.pipeline import MiniGPT5Pipeline
    from minigpt5.utils.images import Picture

T = TypeVar("T")
RECORD = "story.json"
# The least width of an animation, in pixels: smaller pictures are enlarged smoothly.
_FRAME = 480
# Where the context is too short for all steps: the opening says whom it is about, the latest steps where things stand.
_LATEST = 3
MOST_STEPS, LARGEST_SEED = 1000, 2**64 - 1
# The image modes of a story: a step without a picture is its last, or every step has one.
STORY_MODES = ("auto", "always")
# The names of its pictures, and of a reply's.
_PICTURE = re.compile(r"(step|image)-[1-9]\d*\.png")
# Arguments of the pipeline's call that make a story one.
_OWN = ("max_images", "generator", "output_type", "return_dict")


@dataclass(frozen=True)
class StoryStep:
    """A sentence of a story, counted from 1, and its picture; the sentence with which a story ends may have none."""

    index: int
    text: str
    image: Image.Image | None


def tell_story(
    pipe: MiniGPT5Pipeline,
    opening: str,
    image: Picture | None = None,
    steps: int = 5,
    seed: int = 0,
    image_mode: str = "auto",
    **generation: Any,
) -> Iterator[StoryStep]:
    """Paint the opening, then go on with the story; every step has read all text and pictures before it.

    A model that has learnt how stories end says so by a step without a picture, which is the last.

    Args:
        opening: the first sentence, taken over as it is.
        image: a picture of whom the story is about.
        steps: the most sentences of the story, the opening among them.
        seed: of the one generator behind the whole story.
        image_mode: "auto" lets the model end the story before that, "always" has a picture painted for each of the
            steps, of which there are then as many as are asked for.
        generation: further arguments of the pipeline's call, such as `do_sample`, with which another seed tells another
            story.

    Yields:
        The steps, each as soon as its picture is painted.

    Raises:
        TypeError, ValueError: at once for an argument of another kind or out of its range; on any step for a prompt
            that is longer than the context although only the opening and the latest steps are kept.
    """
    steps, seed = whole_number("steps", steps, 1, MOST_STEPS), whole_number("seed", seed, 0, LARGEST_SEED)
    image_mode = one_of("image_mode", image_mode, STORY_MODES)
    if not some_text("opening", opening).strip():
        raise ValueError("the opening is empty; write the story's first sentence")
    for name in _OWN:
        if name in generation:
            raise ValueError(f"a story has its own {name}, so tell_story takes none")
    return _tell(pipe, opening, image, steps, seed, image_mode, generation)


def _tell(
    pipe: MiniGPT5Pipeline,
    opening: str,
    image: Picture | None,
    steps: int,
    seed: int,
    image_mode: str,
    generation: dict[str, Any],
) -> Iterator[StoryStep]:
    # Imported here, so that the command line can use this module and still answer at once.
    import torch

    from minigpt5.data.tasks import continue_story, illustrate
    from minigpt5.readers import ReaderCache

    generation |= {"max_images": 1, "generator": torch.Generator().manual_seed(seed)}
    # Each step begins as the one before it did, and so reads no picture that was read then.
    generation["prompt_cache"] = ReaderCache()
    prompt = _user_turn(illustrate([None], [image], opening))
    texts, pictures = [opening], pipe(prompt, image_mode="always", **generation).images[0]
    yield StoryStep(1, opening, pictures[0])
    for index in range(2, steps + 1):
        reply = read_fitting(
            texts, pictures, continue_story, lambda prompt: pipe(prompt, image_mode=image_mode, **generation)
        )
        step = StoryStep(index, reply.text[0], next(iter(reply.images[0]), None))
        if step.text or step.image:
            yield step
        if step.image is None:
            return
        texts.append(step.text)
        pictures.append(step.image)


def _user_turn(content: list[dict]) -> list[dict]:
    return [{"role": "user", "content": content}]


def read_fitting(
    texts: Sequence[str | None],
    pictures: Sequence[Any],
    question: Callable[[Sequence[Any], Sequence[Any]], list[dict]],
    read: Callable[[list[dict]], T],
) -> T:
    """Read a question about a story so far, steps behind the opening left out, oldest first, until it fits.

    Args:
        texts, pictures: of the steps; either may be `None`.
        question: `continue_story`, or another that is asked in their light.
        read: reads chat messages, or raises a `PromptTooLongError`.

    Returns:
        What came of reading it.

    Raises:
        PromptTooLongError: if not even the opening and the latest steps fit.
    """
    from minigpt5.readers.prompts import PromptTooLongError

    furthest = max(1, len(texts) - _LATEST)
    for start in range(1, furthest + 1):
        prompt = _user_turn(question([*texts[:1], *texts[start:]], [*pictures[:1], *pictures[start:]]))
        try:
            return read(prompt)
        except PromptTooLongError:
            if start == furthest:
                raise
    raise AssertionError("there is a question at least")


def story_gif(steps: Sequence[StoryStep], seconds: float = 3.0) -> bytes:
    """A story as an animation: each picture above its sentence, which stands alone where there is none.

    Args:
        seconds: that each step is shown.
    """
    from PIL import Image, ImageDraw, ImageFont

    width = max([_FRAME, *(step.image.width for step in steps if step.image)])
    font = ImageFont.load_default(width / 20)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    texts = [_wrapped(step.text, width * 0.9, lambda line: measure.textlength(line, font)) for step in steps]
    space = max(measure.multiline_textbbox((0, 0), text, font)[3] for text in texts) + width / 10
    images = [step.image for step in steps]
    pictures = [image and image.resize((width, round(width * image.height / image.width))) for image in images]
    height = max((picture.height for picture in pictures if picture), default=0)
    frames = []
    for text, picture in zip(texts, pictures, strict=True):
        frame = Image.new("RGB", (width, round(height + space)), "#fffdf8")
        if picture:
            frame.paste(picture, (0, height - picture.height))
        place = (width / 2, height + space / 2 if picture else (height + space) / 2)
        ImageDraw.Draw(frame).multiline_text(place, text, "#2b2a33", font, anchor="mm", align="center")
        frames.append(frame)
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=round(seconds * 1000), loop=0)
    return buffer.getvalue()


def _wrapped(text: str, width: float, measure: Callable[[str], float]) -> str:
    """Lines that are no wider, where words allow it."""
    lines: list[str] = []
    for word in text.split():
        if lines and measure(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def write_story(
    out: Path, prompt: str, model: str, seed: int, steps: Sequence[StoryStep], settings: Mapping[str, Any] | None = None
) -> None:
    """Write a story's folder: `index.html`, `story.json` and `step-1.png`…, whole or not at all.

    Args:
        settings: what else the story was told with, for the record.

    Raises:
        FileExistsError: see `check_folder`.
        OSError: if the folder cannot be written.
    """
    record = {
        "prompt": prompt,
        "model": model,
        "seed": seed,
        **(settings or {}),
        "steps": [{"text": step.text, "image": step.image and f"step-{step.index}.png"} for step in steps],
    }
    page = story_html(prompt, [(step.text, step.image) for step in steps], f"{model}, seed {seed}")
    files: dict[str, str | Image.Image] = {"index.html": page, RECORD: to_json(record)}
    files |= {f"step-{step.index}.png": step.image for step in steps if step.image}
    replace_folder(out, RECORD, files)


def check_folder(out: Path, record: str) -> None:
    """Refuse an output folder that is neither free nor an earlier run's, with what its record tells of and no more.

    Raises:
        OSError: saying what is in the way.
    """
    check_place(out)
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"{out} is a file, not a folder")
    if out.resolve() == Path.cwd():
        raise FileExistsError(f"{out} is the current folder; name one inside it")
    there = list(out.iterdir()) if out.exists() else []
    own = _written(out / record) if there else set()
    if any(path.name not in own or path.is_symlink() or not path.is_file() for path in there):
        raise FileExistsError(f"{out} holds other files; name a new folder")


def _written(record: Path) -> set[str]:
    """The files that an earlier run wrote, by its record; none where it is somebody else's."""
    try:
        told = read_json(record) if record.is_file() else {}
    except (OSError, ValueError):
        return set()
    if not {"prompt", "model", "seed"} <= told.keys():
        return set()
    parts = [part for value in told.values() if isinstance(value, list) for part in value]
    pictures = {part["image"] for part in parts if isinstance(part, dict) and isinstance(part.get("image"), str)}
    return {"index.html", record.name, *filter(_PICTURE.fullmatch, pictures)}


def replace_folder(out: Path, record: str, files: Mapping[str, str | Image.Image]) -> None:
    """Write texts and pictures as the folder `out`, whole or not at all; an earlier run's is replaced.

    Raises:
        OSError: see `check_folder`, or if writing fails; `out` is as it was.
    """
    check_folder(out, record)
    with whole_folder(out, record) as new:
        for name, content in files.items():
            if isinstance(content, str):
                (new / name).write_text(content, encoding="utf-8")
            else:
                content.save(new / name)
