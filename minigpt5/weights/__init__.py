"""The models that ship with the package, each a folder here."""

from __future__ import annotations

import os
import re
from pathlib import Path

SHIPPED = Path(__file__).parent


def shipped_model(name: str | os.PathLike) -> str | os.PathLike:
    """The folder of a model that ships with the package under this name; any other name as it is."""
    folder = SHIPPED / str(name)
    # Not Path.exists: it raises for a name that is too long for any file.
    return folder if str(name) and os.path.exists(folder / "model_index.json") else name


def title_of(name: str | os.PathLike) -> str:
    """What a model is called: the last part of its folder, also of the current one, or of its repository."""
    return Path(name).absolute().name


def shipped_models() -> list[str]:
    """The names of the models that ship with the package."""
    return sorted(path.parent.name for path in SHIPPED.glob("*/model_index.json"))


def is_pipeline(name: str | os.PathLike) -> bool:
    """Whether a model is a whole pipeline, shipped, in a folder or in the hub's cache, and no reader by itself."""
    return (
        os.path.exists(Path(shipped_model(name), "model_index.json"))
        or cached_file(name, "model_index.json") is not None
    )


def cached_file(name: str | os.PathLike, file: str) -> str | None:
    """Where a file of a repository lies in the hub's cache; `None` where it does not."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(str(name), file)
    except HFValidationError:  # a path, and no name of a repository
        return None
    return cached if isinstance(cached, str) else None


def check_model(name: str) -> None:
    """Refuse what names neither a shipped model nor a pipeline's folder nor, as owner/name, a hub repository.

    Raises:
        ValueError: naming the model and what there is.
    """
    is_folder = os.path.isfile(os.path.join(shipped_model(name), "model_index.json"))
    if not is_folder and (os.path.lexists(name) or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", name)):
        shipped = ", ".join(shipped_models()) or "no models"
        raise ValueError(
            f"unknown model {name!r}; shipped with the package: {shipped}; "
            "the folder of a saved pipeline or a hub repository (owner/name) works too"
        )
