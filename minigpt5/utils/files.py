"""Files and folders that are there whole or not at all: everything that the library writes is written here.

What is written gets its name when it is complete and on the disk, so neither a full disk nor a crash nor another
process that writes the same leaves half of anything, or takes away what was there before.
"""

from __future__ import annotations

import errno
import json
import os
import re
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

if TYPE_CHECKING:
    from PIL import Image


@contextmanager
def whole_file(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path beside `path`, which takes its name when the block ends well and goes when it fails.

    The folder that it lies in is made.

    Raises:
        OSError: if it cannot be written; what was there is as it was.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        with _disk_errors(path):
            yield temporary
            _sync(temporary)
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | os.PathLike, mark: str, own: re.Pattern | None = None) -> Iterator[Path]:
    """A new, empty folder of the same name, which takes the place of `path` when the block ends well.

    What is hidden in the old one, such as the `.git` of a clone that is written to, is kept.

    Args:
        mark: a file that every such folder holds. An existing folder without it is not ours to replace.
        own: the files that such a folder may hold, by their paths in it; one with others is not replaced.

    Raises:
        OSError: see `check_replaceable`; or if it cannot be written. What was there is as it was.
    """
    check_replaceable(path, mark, own)
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as beside, _disk_errors(path):
        new, old = Path(beside, path.name), Path(beside, "old")
        new.mkdir()
        yield new
        for file in new.rglob("*"):
            if file.is_file():
                _sync(file)
        kept = [entry.name for entry in path.glob(".*") if not os.path.lexists(new / entry.name)]
        try:
            for name in kept:
                Path(path, name).rename(new / name)
            if path.exists():
                path.rename(old)
            new.rename(path)
        except BaseException:
            if old.exists():
                old.rename(path)
            for name in kept:
                if os.path.lexists(new / name):
                    Path(new, name).rename(path / name)
            raise


def check_replaceable(path: str | os.PathLike, mark: str, own: re.Pattern | None = None) -> None:
    """Refuse a folder that holds files but not `mark`: no earlier run has written it; see `whole_folder`.

    Raises:
        OSError: saying what is in the way.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"{path} is a file, not a folder")
    if path.is_dir() and any(path.iterdir()) and not (path / mark).exists():
        raise FileExistsError(f"{path} holds other files and no {mark}; name a new folder")
    if own is not None:
        files = (each for each in path.rglob("*") if each.is_symlink() or not each.is_dir())
        names = (str(file.relative_to(path)) for file in files)
        if foreign := next((name for name in names if not own.fullmatch(name)), None):
            raise FileExistsError(f"{path} holds other files, such as {foreign}; name a new folder")


def check_place(path: str | os.PathLike) -> None:
    """Refuse a path that nothing can be written to, before the work whose result it is to hold.

    Raises:
        OSError: saying what is in the way.
    """
    path = Path(path).absolute()
    existing = next(each for each in (path, *path.parents) if _is_there(each))
    if existing.is_symlink() and not existing.exists():
        raise FileNotFoundError(f"{existing} is a link that leads nowhere")
    if existing != path and not existing.is_dir():
        raise NotADirectoryError(f"{existing} is a file, not a folder")
    # What is there is replaced by what is written beside it.
    folder = existing.resolve().parent if existing == path else existing
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{folder} is not writable")


def _is_there(path: Path) -> bool:
    try:
        os.lstat(path)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        return False
    return True


def check_file(path: str | os.PathLike) -> None:
    """Refuse a path that no file can be written to.

    Raises:
        OSError: see `check_place`; or if it is a folder.
    """
    check_place(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a folder, not a file")


def check_new_folder(path: str | os.PathLike) -> None:
    """Refuse a folder that is there, unless it is empty, or that cannot be made.

    Raises:
        OSError: see `check_place`; or if something is there.
    """
    check_place(path)
    if os.path.exists(path) and not (os.path.isdir(path) and not os.listdir(path)):
        raise FileExistsError(f"{path} is there already; name a new folder")


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file, whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_picture(path: str | os.PathLike, picture: Image.Image) -> None:
    """Write a PNG file, or a WebP file of a tenth of its size where the name ends so, whole or not at all.

    Raises:
        OSError: if it cannot be written.
    """
    with whole_file(path) as temporary:
        if Path(path).suffix == ".webp":
            picture.save(temporary, "WEBP", quality=90)
        else:
            picture.save(temporary, "PNG")


def write_json(path: str | os.PathLike, record: Any) -> None:
    """Write a record as people like to read it, whole or not at all.

    Raises:
        OSError: if it cannot be written.
        ValueError: if it holds a number that is not finite, for which JSON has no word.
    """
    write_text(path, to_json(record))


def to_json(record: Any) -> str:
    """A record as people like to read it.

    Raises:
        ValueError: if it holds a number that is not finite, for which JSON has no word.
    """
    return json.dumps(record, ensure_ascii=False, indent=2, allow_nan=False) + "\n"


def _sync(file: Path) -> None:
    with open(file, "rb+") as content:
        os.fsync(content.fileno())


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """Torch and safetensors have errors of their own for a disk that is full."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        raise OSError(f"{path} could not be written ({error})") from error
