"""JSON and text that others wrote, read whole or refused with the place of what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

KINDS = {str: "a string", int: "a whole number", list: "a list", dict: "an object"}


def decode_text(content: bytes, place: str) -> str:
    """UTF-8, with or without a byte order mark.

    Raises:
        ValueError: naming place and byte, if it is not.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}, byte {error.start}: not UTF-8") from None


def parse_json(content: bytes, place: str, line: int | None = None) -> Any:
    """What JSON says.

    Args:
        line: where it stands in its file, if it is one line of it.

    Raises:
        ValueError: naming the place, if it is not JSON, says a name twice, is nested too deeply or holds half a
            character.
    """
    at = place if line is None else f"{place}, line {line}"
    text = decode_text(content, at)
    try:
        parsed = json.loads(text, object_pairs_hook=_named_once)
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(parsed, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        lines = error.msg == "Extra data" and line is None and error.colno == 1
        told = "Extra data: a value a line, where one is expected" if lines else error.msg
        raise ValueError(f"{place}, line {line or error.lineno}, column {error.colno}: not JSON ({told})") from None
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{at}: half a character, \\u{ord(error.object[error.start]):x}, without its other half"
        ) from None
    except RecursionError:
        raise ValueError(f"{at}: JSON nested too deeply") from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{at}: not JSON ({error})") from None
    return parsed


def _named_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    named = dict(pairs)
    if len(named) < len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"it says {shortened(twice)} twice")
    return named


def read_json(path: Path, kind: type = dict) -> Any:
    """The content of a JSON file: an object, or where `kind` is `list` an array.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is anything else; names the file and line.
    """
    content = parse_json(path.read_bytes(), str(path))
    if not isinstance(content, kind):
        raise ValueError(f"{path}, line 1: expected {KINDS[kind]}, got {shortened(content)}")
    return content


def read_json_lines(path: Path, part: tuple[int, int] = (0, 1)) -> Iterator[tuple[str, Any]]:
    """Place and content of each line that is not empty, of the lines index, index + count, … of `part`.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if a line is not JSON; names file and line.
    """
    with open(path, "rb") as file:
        yield from json_lines(file, str(path), part)


def json_lines(file: Iterable[bytes], name: str, part: tuple[int, int] = (0, 1)) -> Iterator[tuple[str, Any]]:
    """What `read_json_lines` gives, of a file that is open and has that name."""
    for number, line in islice(enumerate(file, start=1), part[0], None, part[1]):
        if line.strip():
            yield f"{name}, line {number}", parse_json(line.rstrip(), name, number)


def field(entry: Any, name: str, kind: type, place: str) -> Any:
    """`entry[name]`.

    Raises:
        ValueError: naming place and field, if there is none or it is not of that kind.
    """
    if not isinstance(entry, dict):
        raise ValueError(f"{place}: expected an object with {name}, got {shortened(entry)}")
    if name not in entry:
        there = [f"{each:.60}" for each in islice(entry, 10)]
        more = f" and {len(entry) - 10} more" if len(entry) > 10 else ""
        raise ValueError(f"{place}: no {name}; the fields are {', '.join(there) or 'none'}{more}")
    if not isinstance(entry[name], kind) or isinstance(entry[name], bool):
        raise ValueError(f"{place}: {name} is {shortened(entry[name])}, expected {KINDS[kind]}")
    return entry[name]


def said(entry: Any, name: str, place: str) -> str:
    """`entry[name]`, a string that says something.

    Raises:
        ValueError: naming place and field, if it does not.
    """
    text = field(entry, name, str, place)
    if not text.strip():
        raise ValueError(f"{place}: {name} is empty")
    return text


def shortened(value: Any) -> str:
    """A value as JSON, as much of it as an error can hold."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return f"a {type(value).__name__} nested too deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."
