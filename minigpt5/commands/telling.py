"""`minigpt5 story` and `minigpt5 reply`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

from minigpt5.commands.arguments import (
    API_KEY,
    MINIATURE,
    SERVER,
    Once,
    add_adapter,
    as_program_error,
    image_file,
    model_name,
    output_folder,
    prompt,
    say,
    server_address,
    temperature,
    whole_number,
)
from minigpt5.story import (
    LARGEST_SEED,
    MOST_STEPS,
    RECORD,
    STORY_MODES,
    StoryStep,
    replace_folder,
    tell_story,
    write_story,
)
from minigpt5.utils.checks import sampling
from minigpt5.utils.files import to_json
from minigpt5.utils.imports import collector_paused
from minigpt5.utils.logs import quiet_libraries
from minigpt5.utils.programs import ProgramError
from minigpt5.weights import title_of

REPLY_RECORD = "reply.json"


def add_story(commands) -> None:
    """`minigpt5 story`."""
    story = commands.add_parser(
        "story",
        help="tell a story in pictures",
        description="Tell a story in pictures: paint the opening, then go on with it step by step until it ends. "
        f"Writes index.html, {RECORD} and step-1.png, step-2.png, … to a folder.",
        epilog='example: minigpt5 story "A red fox wakes up in the forest." --steps 5 --seed 0 --out story/',
    )
    story.set_defaults(run=run_story)
    story.add_argument("prompt", metavar="OPENING", type=prompt, help="the story's first sentence")
    story.add_argument(
        "--image", type=image_file, action=Once, metavar="FILE", help="a picture of whom the story is about"
    )
    story.add_argument(
        "--steps", type=whole_number(1, MOST_STEPS), default=5, metavar="N", help="most sentences to tell (default: 5)"
    )
    story.add_argument(
        "--server",
        type=server_address,
        default=os.environ.get(SERVER) or None,
        metavar="URL",
        help="a running minigpt5 serve, which tells the same story without the seconds that opening the model takes "
        f"(default: what the environment variable {SERVER} says)",
    )
    story.add_argument(
        "--image-mode",
        choices=STORY_MODES,
        default="auto",
        help="auto: a sentence to which the model paints no picture ends the story; always: there are N, "
        "each with a picture (default: auto)",
    )
    add_common(story, "story", RECORD)


def add_reply(commands) -> None:
    """`minigpt5 reply`."""
    reply = commands.add_parser(
        "reply",
        help="answer one prompt",
        description="Answer one prompt with text, pictures or both. Writes index.html, "
        f"{REPLY_RECORD} and image-1.png, … to a folder, then prints the text and where the pictures are.",
        epilog='example: minigpt5 reply "What do you see?" --image fox.png',
    )
    reply.set_defaults(run=run_reply)
    reply.add_argument(
        "prompt",
        metavar="PROMPT",
        type=prompt,
        help="what to answer; <ImageHere> marks where pictures stand, which otherwise come before the text",
    )
    reply.add_argument(
        "--image", type=image_file, metavar="FILE", action="append", default=[], help="a picture to read; repeatable"
    )
    reply.add_argument(
        "--image-mode",
        choices=("auto", "always", "never"),
        default="auto",
        help="whether to paint: auto leaves it to the model (default: auto)",
    )
    add_common(reply, "reply", REPLY_RECORD)


def add_common(command: argparse.ArgumentParser, name: str, record: str) -> None:
    """What both are told."""
    command.add_argument(
        "--out",
        type=output_folder(record),
        default=name,
        metavar="FOLDER",
        help=f"where to write; an earlier {name} there is replaced (default: {name}/)",
    )
    command.add_argument(
        "--seed",
        type=whole_number(0, LARGEST_SEED),
        default=0,
        metavar="N",
        help="of pictures, and where words are drawn of them too (default: 0)",
    )
    command.add_argument(
        "--temperature",
        type=temperature,
        metavar="T",
        help="how freely words are drawn: 1 by their probability, less closer to the likeliest, 0 takes the likeliest "
        f"whatever the seed (default: the model's own setting; {MINIATURE} has 0)",
    )
    command.add_argument(
        "--model",
        type=model_name,
        default=MINIATURE,
        metavar="MODEL",
        help=f"a model shipped with the package, a pipeline's folder or a hub repository (default: {MINIATURE})",
    )
    add_adapter(command)


def recorded(arguments: argparse.Namespace) -> dict[str, Any]:
    """What a record tells of the settings beside prompt, model and seed: those that are not the usual ones."""
    told = {"adapter": arguments.adapter and str(arguments.adapter), "temperature": arguments.temperature}
    told["image_mode"] = arguments.image_mode if arguments.image_mode != "auto" else None
    return {name: value for name, value in told.items() if value is not None}


def told_here(arguments: argparse.Namespace, options: dict[str, Any]) -> Iterator[StoryStep]:
    """A story of a model that is opened for it."""
    with collector_paused():
        from minigpt5.loading import open_model

    quiet_libraries()
    pipe = open_model(arguments.model, arguments.adapter)
    with as_program_error(ValueError):
        yield from tell_story(pipe, arguments.prompt, **options, **sampling(arguments.temperature))


def told_there(arguments: argparse.Namespace, options: dict[str, Any]) -> Iterator[StoryStep]:
    """A story of a running service: nothing of torch is imported here."""
    from minigpt5.service.client import ServiceError, tell_story_at

    if arguments.adapter:
        raise ProgramError("--adapter is of a model that is opened here: give it to minigpt5 serve, or no --server")
    model, key = title_of(arguments.model), os.environ.get(API_KEY)
    options["temperature"] = arguments.temperature
    with as_program_error(ServiceError):
        yield from tell_story_at(arguments.server, arguments.prompt, model=model, key=key, **options)


def warn_of_unknown_prompt(arguments: argparse.Namespace) -> None:
    """Say what the shipped miniature knows, where it is asked and a prompt names nothing of that."""
    from minigpt5.storyworld.prompts import unknown_prompt_warning

    warning = unknown_prompt_warning(arguments.prompt)
    if warning and arguments.model == MINIATURE and not arguments.adapter:
        print(f"minigpt5: warning: {warning}", file=sys.stderr)


def run_story(arguments: argparse.Namespace) -> None:
    """Tell a story and write its folder."""
    from tqdm import tqdm

    warn_of_unknown_prompt(arguments)
    options: dict[str, Any] = {name: getattr(arguments, name) for name in ("image", "steps", "seed", "image_mode")}
    told = told_there(arguments, options) if arguments.server else told_here(arguments, options)
    # Silent where stderr is no terminal, and gone when done, so that errors and logs stay one line each.
    steps = list(tqdm(told, "story", arguments.steps, leave=False, unit="step", disable=None))
    with as_program_error(OSError, f"cannot write to {arguments.out}: "):
        write_story(arguments.out, arguments.prompt, arguments.model, arguments.seed, steps, recorded(arguments))
    if len(steps) < arguments.steps:
        print(f"minigpt5: the story ended by itself after {len(steps)} of {arguments.steps} steps", file=sys.stderr)
    say(arguments.out / "index.html")


def run_reply(arguments: argparse.Namespace) -> None:
    """Answer a prompt, write the reply's folder, and print the text and where the pictures are."""
    # A question about a picture need not name anything itself.
    if not arguments.image:
        warn_of_unknown_prompt(arguments)
    with collector_paused():
        import torch

        from minigpt5.loading import open_model
        from minigpt5.utils.html import reply_html

    quiet_libraries()
    pipe = open_model(arguments.model, arguments.adapter)
    options = sampling(arguments.temperature)
    generator = torch.Generator().manual_seed(arguments.seed)
    with as_program_error(ValueError):
        output = pipe(
            arguments.prompt, arguments.image, image_mode=arguments.image_mode, generator=generator, **options
        )
    parts, pictures = [], {}
    for part in output.segments[0]:
        if isinstance(part, str):
            parts.append({"text": part})
        else:
            name = f"image-{len(pictures) + 1}.png"
            pictures[name] = part
            parts.append({"image": name})
    record = {
        "prompt": arguments.prompt,
        "images": [image.filename for image in arguments.image],
        "model": arguments.model,
        "seed": arguments.seed,
        **recorded(arguments),
        "reply": parts,
    }
    footer = f"{arguments.model}, seed {arguments.seed}"
    page = reply_html(arguments.prompt, arguments.image, output.segments[0], footer)
    with as_program_error(OSError, f"cannot write to {arguments.out}: "):
        replace_folder(arguments.out, REPLY_RECORD, {"index.html": page, REPLY_RECORD: to_json(record), **pictures})
    for part in parts:
        say(part["text"] if "text" in part else arguments.out / part["image"])
