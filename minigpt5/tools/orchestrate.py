"""Questions answered by a chat model that has tools: it calls them, or has a program of its own run, until it knows."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from minigpt5.tools.interpreter import run_program
from minigpt5.tools.tools import PictureTools, ToolError, call_as_told, describe
from minigpt5.utils.checks import some_text, whole_number

_TOLD = (
    "You see no pictures yourself: you know them by their names and use the tools. One that paints gives the new "
    "picture's name. Name the pictures that belong to your answer in it."
)
_NAME = re.compile(r"\bpicture-\d+\b")


class TooManyTurnsError(RuntimeError):
    """The chat model called tools again and again, and came to no answer."""


@dataclass(frozen=True)
class ToolCall:
    """A call that the chat model made.

    Args:
        name: of the tool.
        arguments: as it wrote them, a JSON object.
        result: what it was told, as JSON, or `error: ` and what was wrong.
    """

    name: str
    arguments: str
    result: str


@dataclass(frozen=True)
class Answer:
    """What came of a question.

    Args:
        text: the chat model's last words.
        pictures: those that it names, by their names, in the order that it names them.
        calls: all that it called, in order.
    """

    text: str
    pictures: dict[str, Image.Image]
    calls: Sequence[ToolCall]


def orchestrate(client: Any, model: str, question: str, workbench: PictureTools, max_turns: int = 10) -> Answer:
    """Let a chat model answer with the tools of a workbench.

    Beside these it is offered `run_program`, which takes a program in the language of `interpreter`.
    What it calls wrongly it is told, so that it can do better.

    Args:
        client: of OpenAI's shape, such as `openai.OpenAI(base_url=…)`.
        model: the chat model's name; it must know function calling.
        question: the user's.
        workbench: the tools, and the pictures that there are.
        max_turns: requests that the chat model gets.

    Raises:
        TooManyTurnsError: if it then still calls tools.
        TypeError, ValueError: for an argument of another kind or out of its range.
    """
    whole_number("max_turns", max_turns, 1)

    def program(source: str) -> Any:
        """Run a small Python program that calls the tools as functions; gives the value of `answer`.

        Args:
            source: the program. It has if, for over lists and range, arithmetic, comparisons, f-strings, len and str,
                but no attributes, imports or functions of its own. It must set `answer`.
        """
        return run_program(source, workbench.tools)

    tools = {**workbench.tools, "run_program": program}
    there = f"Pictures: {', '.join(workbench.pictures) or 'none yet'}."
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": f"{_TOLD} {there}"},
        {"role": "user", "content": some_text("question", question)},
    ]
    offered, calls = [describe(name, function) for name, function in tools.items()], []
    for _ in range(max_turns):
        said = client.chat.completions.create(model=model, messages=messages, tools=offered).choices[0].message
        if not said.tool_calls:
            text = said.content or ""
            named = [name for name in dict.fromkeys(_NAME.findall(text)) if name in workbench.pictures]
            return Answer(text, {name: workbench.pictures[name] for name in named}, calls)
        asked = [(one.id, one.function.name, one.function.arguments) for one in said.tool_calls]
        wanted = [
            {"id": number, "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, name, arguments in asked
        ]
        messages.append({"role": "assistant", "content": said.content, "tool_calls": wanted})
        for number, name, arguments in asked:
            try:
                result = json.dumps(call_as_told(tools, name, arguments))
            except ToolError as error:
                result = f"error: {error}"
            calls.append(ToolCall(name, arguments, result))
            messages.append({"role": "tool", "tool_call_id": number, "content": result})
    raise TooManyTurnsError(f"{model} came to no answer in {max_turns} turns; its last call was {calls[-1].name}")
