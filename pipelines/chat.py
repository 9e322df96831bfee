"""Talk with a model in the terminal: what it says is shown as it comes, what it paints is saved.

    python pipelines/chat.py --model storyworld-mini --out chat/

`/image fox.png` puts a picture into what you say next, words or an empty line. Otherwise an empty line ends the talk,
and Ctrl-D always does.
"""

import sys
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from itertools import count
from pathlib import Path

import torch

from minigpt5 import TextEvent
from minigpt5.loading import ModelSettings, open_model
from minigpt5.utils.files import write_picture
from minigpt5.utils.images import ImageError, open_image
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import setting


@dataclass(kw_only=True)
class ChatConfig(ModelSettings):
    """The talk."""

    out: Path = setting(Path("chat"), help="gets the pictures 001.png, 002.png, …; those that are there stay")


def listen():
    """What the user says next: pictures, a line of text, or both; nothing at the end of the talk."""
    content = []
    while True:
        line = input("you> ").strip()
        if not line.startswith("/image"):
            return [*content, {"type": "text", "text": line}] if line else content
        try:
            content.append({"type": "image", "image": open_image(line.removeprefix("/image").strip())})
        except ImageError as error:
            print(error)


def answer(chat, content, generator, out):
    """The model's turn, printed and saved while it comes."""
    for event in chat.stream(content, generator=generator):
        if isinstance(event, TextEvent):
            print(event.text, end="", flush=True)
        else:
            path = next(path for number in count(1) if not (path := out / f"{number:03}.png").exists())
            write_picture(path, event.image)
            print(f" [{path}] ", end="", flush=True)
    print()


def main(config: ChatConfig):
    pipe = open_model(config.model, config.adapter)
    config.out.mkdir(parents=True, exist_ok=True)
    # What is typed in another encoding is no reason to end the talk.
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    chat, generator = pipe.chat(), torch.Generator().manual_seed(0)
    with suppress(EOFError):
        while content := listen():
            try:
                answer(chat, content, generator, config.out)
            except ValueError as error:
                print(error)


if __name__ == "__main__":
    run_program(main, ChatConfig, __doc__)
