"""The models that ship with the package, each a folder here."""

from __future__ import annotations

import os
from pathlib import Path

SHIPPED = Path(__file__).parent


def shipped_model(name: str | os.PathLike) -> str | os.PathLike:
    """The folder of a model that ships with the package under this name; any other name as it is."""
    folder = SHIPPED / str(name)
    # Not Path.exists: it raises for a name that is too long for any file.
    return folder if str(name) and os.path.exists(folder / "model_index.json") else name


def shipped_models() -> list[str]:
    """The names of the models that ship with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/model_index.json"))
