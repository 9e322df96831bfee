"""JSON that says what it should, and what an exception says in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: if it is not there.
        ValueError: if it is broken, no object, or says a name twice.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        content = dict(pairs)
        if len(content) < len(pairs):
            names = [name for name, _ in pairs]
            raise ValueError(f"it says {next(name for name in names if names.count(name) > 1)!r} twice")
        return content

    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    try:
        content = json.loads(path.read_bytes(), object_pairs_hook=once)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON that can be read: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a JSON {type(content).__name__}, expected an object")
    return content


def first_line(error: BaseException) -> str:
    """What an exception says in its first line, or else its kind."""
    return str(error).strip().split("\n")[0] or type(error).__name__
