"""Talk with a model in the terminal: what it says is shown as it comes, what it paints is saved.

    python pipelines/chat.py --model storyworld-mini --out chat/
`/image fox.png` puts a picture into what you say next; an empty line or Ctrl-D ends the talk.
"""

import argparse
from contextlib import suppress
from pathlib import Path

import torch

from minigpt5 import MiniGPT5Pipeline, TextEvent
from minigpt5.utils.images import ImageError, open_image


def listen():
    """What the user says next: pictures, then a line of text; nothing at the end of the talk."""
    content = []
    while True:
        line = input("you> ").strip()
        if not line.startswith("/image"):
            return [*content, {"type": "text", "text": line}] if line else []
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
            path = out / f"{len(list(out.glob('*.png'))) + 1:03}.png"
            event.image.save(path)
            print(f" [{path}] ", end="", flush=True)
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="storyworld-mini")
    parser.add_argument("--adapter", type=Path, help="folder of what training made beside that model")
    parser.add_argument("--out", type=Path, default=Path("chat"), help="gets the pictures 001.png, 002.png, …")
    arguments = parser.parse_args()
    pipe = MiniGPT5Pipeline.from_pretrained(arguments.model)
    if arguments.adapter:
        pipe.load_adapter(arguments.adapter)
    pipe.to("cuda" if torch.cuda.is_available() else "cpu")
    pipe.set_progress_bar_config(disable=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    chat, generator = pipe.chat(), torch.Generator().manual_seed(0)
    while content := listen():
        try:
            answer(chat, content, generator, arguments.out)
        except ValueError as error:
            print(error)


if __name__ == "__main__":
    with suppress(EOFError, KeyboardInterrupt):
        main()
