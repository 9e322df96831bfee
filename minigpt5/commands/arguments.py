"""What the commands' arguments may be, and how a command speaks."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

from minigpt5 import weights
from minigpt5.story import check_folder
from minigpt5.utils.checks import real_number
from minigpt5.utils.files import check_file, check_new_folder
from minigpt5.utils.programs import ProgramError
from minigpt5.utils.settings import DTYPES

if TYPE_CHECKING:
    from PIL import Image

MINIATURE = "storyworld-mini"
ADAPTER_RECORD = "adapter.json"
# Environment variables: the key of a service, and where one runs.
API_KEY, SERVER = "MINIGPT5_API_KEY", "MINIGPT5_SERVER"


class Parser(argparse.ArgumentParser):
    """Leaves it to `main` to show errors, and takes options by their whole names."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """End with a `ProgramError`."""
        raise ProgramError(message)


@contextmanager
def as_program_error(kind: type[Exception] | tuple[type[Exception], ...], prefix: str = "") -> Iterator[None]:
    """Turn exceptions of a kind into a `ProgramError`."""
    try:
        yield
    except kind as error:
        raise ProgramError(f"{prefix}{error}") from error


def say(line: object) -> None:
    """Print a line; who stops listening is no error.

    Raises:
        ProgramError: if it cannot be printed.
    """
    try:
        print(line, flush=True)
    except OSError as error:
        # At its end Python would try once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            raise ProgramError(f"cannot print: {error}") from error


def prompt(text: str) -> str:
    """A prompt that says something."""
    if not text.strip():
        raise argparse.ArgumentTypeError("the prompt is empty; say what to tell or draw")
    return text


class Once(argparse.Action):
    """An option that must not come twice."""

    def __call__(self, parser, arguments, value, option=None):
        """Keep the value."""
        if getattr(arguments, self.dest) is not None:
            raise argparse.ArgumentError(self, "is given twice, but there is one")
        setattr(arguments, self.dest, value)


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """An integer from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"not a whole number: {text!r}") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
        if most is not None and number > most:
            raise argparse.ArgumentTypeError(f"must be at most {most}, got {number}")
        return number

    return parse


def temperature(text: str) -> float:
    """A number of at least 0."""
    try:
        return real_number("the temperature", float(text), 0)
    except ValueError:
        raise argparse.ArgumentTypeError(f"not a number of at least 0: {text!r}") from None


def image_file(name: str) -> Image.Image:
    """The picture in a file, its name in `filename`."""
    from minigpt5.utils.images import ImageError, open_image

    try:
        image = open_image(name)
    except ImageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    vars(image)["filename"] = name
    return image


def model_name(name: str) -> str:
    """A shipped model, a pipeline's folder or a hub repository; no name without an owner is looked up on the hub."""
    try:
        weights.check_model(name)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name


def adapter_folder(name: str) -> Path:
    """A folder with an adapter."""
    if not os.path.isfile(os.path.join(name, ADAPTER_RECORD)):
        raise argparse.ArgumentTypeError(f"{name!r} is not the folder of an adapter: it has no {ADAPTER_RECORD}")
    return Path(name)


def model_source(name: str) -> str:
    """A shipped model, a folder, or what may be on the hub."""
    if os.path.lexists(name) and not os.path.isdir(name):
        raise argparse.ArgumentTypeError(f"{name} is not the folder of a model")
    return name


def server_address(url: str) -> str:
    """An http or https address."""
    try:
        place = urlsplit(url)
        told = place.scheme in ("http", "https") and place.hostname and place.port != 0
    except ValueError:
        told = False
    if not told:
        raise argparse.ArgumentTypeError(f"not an address such as http://127.0.0.1:8000: {url!r}")
    return url


def place_to_write(check: Callable[[str], object]) -> Callable[[str], Path]:
    """A path that a check which raises `OSError` has nothing against."""

    def parse(name: str) -> Path:
        try:
            check(name)
        except OSError as error:
            raise argparse.ArgumentTypeError(f"cannot write to {name}: {error}") from None
        return Path(name)

    return parse


def output_folder(record: str) -> Callable[[str], Path]:
    """A folder that is free, or an earlier run's."""
    return place_to_write(lambda name: check_folder(Path(name), record))


new_folder, free_file = place_to_write(check_new_folder), place_to_write(check_file)


def add_dtype(command: argparse.ArgumentParser) -> None:
    """In which type a model is opened or made."""
    command.add_argument("--dtype", choices=DTYPES, default="float32", help="of all weights (default: float32)")


def add_adapter(command: argparse.ArgumentParser) -> None:
    """What is put on top of the model."""
    command.add_argument(
        "--adapter", type=adapter_folder, metavar="FOLDER", help="what training made beside that model"
    )


@contextmanager
def feedback_errors(store: Path) -> Iterator[None]:
    """Turn what is wrong with a file of feedback into a `ProgramError`."""
    import sqlite3

    with as_program_error((OSError, ValueError)), as_program_error(sqlite3.Error, f"{store}: "):
        yield
