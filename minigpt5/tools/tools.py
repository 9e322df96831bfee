"""What a chat model may call: functions of plain values, told in OpenAI's shape; and those that a pipeline offers."""

from __future__ import annotations

import inspect
import json
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from minigpt5.data.tasks import illustrate
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.utils.checks import some_text, whole_number
from minigpt5.utils.images import Picture, to_rgb

Tools = Mapping[str, Callable[..., Any]]
"""Functions by the names that they are called by."""

_JSON_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean"}
# An argument of a docstring in Google's form.
_ARGUMENT = re.compile(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", re.MULTILINE)


class ToolError(ValueError):
    """A call that cannot be; the message is for the model that made it."""


class PictureTools:
    """What a pipeline does with pictures, which are known by name: `picture-1`, `picture-2` and so on.

    Args:
        pipe: what reads and paints.
        pictures: that are there from the beginning.
        seed: of all that is painted; the same calls paint the same pictures.

    Raises:
        TypeError, ValueError: if one of them is of another kind.
    """

    def __init__(self, pipe: MiniGPT5Pipeline, pictures: Sequence[Picture] = (), seed: int = 0):
        self.pipe, self.pictures = pipe, dict[str, Image.Image]()
        self._generator = torch.Generator().manual_seed(whole_number("seed", seed, 0, 2**64 - 1))
        for picture in pictures:
            self.add(picture)

    def add(self, picture: Picture) -> str:
        """Keep a picture; gives its name."""
        name = f"picture-{len(self.pictures) + 1}"
        self.pictures[name] = to_rgb(picture)
        return name

    @property
    def tools(self) -> Tools:
        """What may be called."""
        return {"read": self.read, "paint": self.paint, "change": self.change, "compare": self.compare}

    def read(self, picture: str, question: str) -> str:
        """Answer a question about a picture.

        Args:
            picture: the picture's name.
            question: such as "What do you see?".
        """
        reply = self.pipe(some_text("question", question), self._named(picture), image_mode="never")
        return reply.text[0]

    def paint(self, description: str) -> str:
        """Paint a new picture; gives its name.

        Args:
            description: of what it is to show.
        """
        prompt = illustrate([], [], some_text("description", description))
        return self._painted([{"role": "user", "content": prompt}])

    def change(self, picture: str, wish: str) -> str:
        """Paint a picture anew with something changed; gives the new picture's name.

        Args:
            picture: the name of the picture, which stays as it is.
            wish: what is to be another.
        """
        return self._painted(some_text("wish", wish), self._named(picture))

    def compare(self, one: str, other: str, question: str) -> bool:
        """Say whether a question has the same answer for two pictures.

        Args:
            one: the name of a picture.
            other: the name of another picture.
            question: such as "What do you see?".
        """
        return self.read(one, question) == self.read(other, question)

    def _named(self, name: str) -> Image.Image:
        if name not in self.pictures:
            raise ToolError(f"there is no picture {name!r}, only {', '.join(self.pictures) or 'none at all'}")
        return self.pictures[name]

    def _painted(self, prompt: Any, picture: Image.Image | None = None) -> str:
        reply = self.pipe(prompt, picture, image_mode="always", max_images=1, generator=self._generator)
        return self.add(reply.images[0][0])


def describe(name: str, function: Callable[..., Any]) -> dict[str, Any]:
    """A function as OpenAI's `tools` tell it, made of its signature and its docstring in Google's form.

    Raises:
        TypeError: for an argument that is no string, number or truth value, or one that the docstring leaves out.
    """
    hints, told = typing.get_type_hints(function), inspect.getdoc(function) or ""
    arguments = {argument: " ".join(text.split()) for argument, text in _ARGUMENT.findall(told)}
    properties, required = {}, []
    for argument, parameter in inspect.signature(function).parameters.items():
        if hints.get(argument) not in _JSON_TYPES or argument not in arguments:
            raise TypeError(
                f"{name} cannot be a tool: {argument} needs a line in its docstring, and to be one of "
                f"{', '.join(kind.__name__ for kind in _JSON_TYPES)}"
            )
        properties[argument] = {"type": _JSON_TYPES[hints[argument]], "description": arguments[argument]}
        if parameter.default is parameter.empty:
            required.append(argument)
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    summary = " ".join(told.partition("\n\n")[0].split())
    return {"type": "function", "function": {"name": name, "description": summary, "parameters": parameters}}


def call(tools: Tools, name: str, arguments: Sequence[Any] = (), named: Mapping[str, Any] | None = None) -> Any:
    """Call a tool by its name, if the arguments are those that it takes.

    Raises:
        ToolError: if there is no such tool, or it takes other arguments or refuses these.
    """
    if name not in tools:
        raise ToolError(f"there is no tool {name!r}, only {', '.join(tools)}")
    function = tools[name]
    hints = typing.get_type_hints(function)
    try:
        bound = inspect.signature(function).bind(*arguments, **(named or {}))
        for argument, value in bound.arguments.items():
            kind = hints[argument]
            # A whole number is a number too; a truth value is none.
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise TypeError(f"{argument} must be {kind.__name__}, got {type(value).__name__}")
    except TypeError as error:
        raise ToolError(f"{name}: {error}") from error
    try:
        return function(*bound.args, **bound.kwargs)
    except ValueError as error:
        raise ToolError(f"{name}: {error}") from error


def call_as_told(tools: Tools, name: str, arguments: str) -> Any:
    """Call a tool as a chat model does: with a JSON object of arguments.

    Raises:
        ToolError: as `call`, and if the arguments are no such object.
    """
    try:
        named = json.loads(arguments or "{}")
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{name}: the arguments are no JSON: {error}") from error
    if not isinstance(named, dict):
        raise ToolError(f"{name}: the arguments must be a JSON object, got {type(named).__name__}")
    return call(tools, name, named=named)
