"""Data sets that a model makes: rows of prompts and pictures in, Parquet files with its replies out.

Input and output are paths or addresses that fsspec knows, `s3://bucket/prompts.jsonl`. A part of the output is one
file, named by its rows' ids, that is there whole or not at all; so a run that was killed goes on with the rows that no
part holds, and a part that is made twice is the same file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, Image, List, Value
from fsspec.implementations.local import LocalFileSystem

from minigpt5.data.tolerant import answered
from minigpt5.output import Segment
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.utils.files import whole_file
from minigpt5.utils.images import ImageError, open_image
from minigpt5.utils.json_files import field, json_lines, parse_json, shortened
from minigpt5.utils.programs import opening
from minigpt5.utils.randomness import named_generator

SETTINGS = "settings.json"
# `datasets.load_dataset("parquet", …)` opens the pictures of what has these.
FEATURES = Features(
    {
        "id": Value("string"),
        "prompt": Value("string"),
        "images": List(Value("string")),
        "reply": List({"text": Value("string"), "image": Image()}),
    }
)


@dataclass(frozen=True)
class Row:
    """What is asked.

    Args:
        id: of no other row.
        images: addresses of the prompt's pictures, or what their files hold.
    """

    id: str
    prompt: str
    images: tuple[str | bytes, ...] = ()


def read_rows(url: str) -> list[Row]:
    """The rows of a file of JSON Lines or, if its name ends so, of Parquet.

    Its fields are `prompt`, a text with `<ImageHere>` where a picture stands; `images`, which may be missing: paths
    that are absolute or relative to the file, addresses, or in Parquet also `datasets`' pictures; and `id`, a text or
    whole number. A row without one has its number in the file, from 1.

    Raises:
        ProgramError: if the file cannot be opened.
        ValueError: for a row that is none, or an id that comes twice; names file and row.
    """
    places: dict[str, str] = {}
    rows = []
    for number, (place, entry) in enumerate(_entries(url), 1):
        prompt = field(entry, "prompt", str, place)
        if not prompt.strip():
            raise ValueError(f"{place}: the prompt is empty")
        own = entry.get("id")
        if isinstance(own, bool) or not isinstance(own, (str, int, type(None))):
            raise ValueError(f"{place}: id is {shortened(own)}, expected a string or a whole number")
        name = str(number if own is None else own)
        if name in places:
            raise ValueError(f"{place}: the id {shortened(name)} is also that of {places[name]}")
        places[name] = place
        images = [] if entry.get("images") is None else field(entry, "images", list, place)
        rows.append(Row(name, prompt, tuple(_picture(image, url, place) for image in images)))
    if not rows:
        raise ValueError(f"{url} has no rows")
    return rows


def _entries(url: str) -> Iterator[tuple[str, Any]]:
    with opening(url):
        file = cast(Any, fsspec.open(url, "rb")).open()
    with file:
        if not url.endswith(".parquet"):
            yield from json_lines(file, url)
            return
        with opening(url):
            entries = pq.read_table(file).to_pylist()
        for number, entry in enumerate(entries, 1):
            yield f"{url}, row {number}", entry


def _picture(image: Any, url: str, place: str) -> str | bytes:
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, bytes):
        return image
    if not isinstance(image, str) or not image:
        raise ValueError(f"{place}: a picture is {shortened(image)}, expected a path")
    if image.startswith("/") or "://" in image:
        return image
    # An actor may run in another folder.
    return (
        f"{url.rpartition('/')[0]}/{image}"
        if "://" in url
        else os.path.join(os.path.dirname(os.path.abspath(os.path.expanduser(url))), image)
    )


class GeneratedFolder:
    """Where the parts of a data set are written.

    Args:
        url: `settings.json` and the files `part-*.parquet` are in it.

    Raises:
        ProgramError: if fsspec cannot reach it.
    """

    def __init__(self, url: str):
        with opening(url):
            self.files, self.root = cast(Any, fsspec.url_to_fs(url))

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Note in a new folder what replies depend on, or compare it with what is noted.

        Raises:
            OSError: if it holds other files, or cannot be written.
            ValueError: if its parts were made otherwise.
        """
        path = f"{self.root}/{SETTINGS}"
        if self.files.exists(path):
            before, now = parse_json(self.files.cat_file(path), path), json.loads(json.dumps(settings))
            if not isinstance(before, dict):
                raise ValueError(f"{path}: expected an object, got {shortened(before)}")
            for name in now.keys() | before.keys():
                old, new = before.get(name), now.get(name)
                if old != new:
                    raise ValueError(f"{self.root} holds replies of {name} {old!r}, not {new!r}; name another folder")
            return
        if self.files.isfile(self.root):
            raise NotADirectoryError(f"{self.root} is a file, not a folder")
        if self.files.isdir(self.root) and self.files.ls(self.root):
            raise FileExistsError(f"{self.root} holds other files and no {SETTINGS}; name a new folder")
        self._write(SETTINGS, json.dumps(settings, indent=2).encode())

    def missing(self, rows: Sequence[Row]) -> list[Row]:
        """Those of the rows that no part holds.

        Raises:
            ProgramError: if a part cannot be read.
            ValueError: if a row had another prompt or other pictures when it was done.
        """
        done: dict[str, dict[str, Any]] = {}
        for path in self._parts():
            with opening(path), self.files.open(path, "rb") as file:
                entries = pq.read_table(file, columns=["id", "prompt", "images"]).to_pylist()
                done |= {entry["id"]: entry for entry in entries}
        for row in rows:
            asked = _asked(row)
            before = done.get(row.id, asked)
            if before != asked:
                other = "another prompt" if before["prompt"] != row.prompt else "other pictures"
                raise ValueError(
                    f"{self.root} holds a reply of row {row.id} to {other}, so the rows have changed; "
                    "name another folder"
                )
        return [row for row in rows if row.id not in done]

    def _parts(self) -> list[str]:
        # Not by fsspec's glob, to which brackets in the folder's own name are a pattern.
        names = self.files.ls(self.root, detail=False) if self.files.isdir(self.root) else []
        return sorted(name for name in names if re.fullmatch(r"part-.*\.parquet", name.rpartition("/")[2]))

    def write(self, replies: Sequence[tuple[Row, Sequence[Segment]]]) -> None:
        """Write a part."""
        entries = [_asked(row) | {"reply": [_segment(part) for part in reply]} for row, reply in replies]
        content = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(entries, schema=FEATURES.arrow_schema), content)
        ids = json.dumps([row.id for row, _ in replies])
        self._write(f"part-{hashlib.sha256(ids.encode()).hexdigest()[:16]}.parquet", content.getvalue())

    def _write(self, name: str, content: bytes) -> None:
        path = f"{self.root}/{name}"
        if isinstance(self.files, LocalFileSystem):
            with whole_file(path) as temporary:
                temporary.write_bytes(content)
        else:
            # Object stores show what is whole.
            self.files.pipe_file(path, content)


def _asked(row: Row) -> dict[str, Any]:
    """What a part says of a row."""
    images = [
        image if isinstance(image, str) else f"sha256:{hashlib.sha256(image).hexdigest()}" for image in row.images
    ]
    return {"id": row.id, "prompt": row.prompt, "images": images}


def _segment(part: Segment) -> dict[str, Any]:
    if isinstance(part, str):
        return {"text": part, "image": None}
    content = io.BytesIO()
    part.save(content, "PNG")
    return {"text": None, "image": {"bytes": content.getvalue(), "path": None}}


@dataclass
class PartMaker:
    """Called with the rows of a part, it asks a model and writes the part.

    A reply depends on its row, the seed and the options alone: each row has a generator of its own, seeded by its id.

    Args:
        load: opens the pipeline, upon the first call.
        folder: gets the part.
        batch_size: rows that are asked at a time.
        options: of the pipeline's call.
    """

    load: Callable[[], MiniGPT5Pipeline]
    folder: GeneratedFolder
    batch_size: int
    seed: int
    options: Mapping[str, Any]

    @cached_property
    def pipe(self) -> MiniGPT5Pipeline:
        """The model."""
        return self.load()

    def __call__(self, rows: Sequence[Row]) -> tuple[int, list[str]]:
        """How many rows these are, and what is wrong with each that was left out as it cannot be asked."""
        problems: list[str] = []
        replies = []
        for start in range(0, len(rows), self.batch_size):
            replies += self._ask(rows[start : start + self.batch_size], problems)
        if replies:
            self.folder.write(replies)
        return len(rows), problems

    def _ask(self, rows: Sequence[Row], problems: list[str]) -> list[tuple[Row, list[Segment]]]:
        asked = []
        for row in rows:
            try:
                asked.append((row, [_open(image) for image in row.images]))
            except ImageError as error:
                problems.append(f"row {row.id}: {error}")
        replies = []
        for (row, _), reply in answered(self._replies, asked):
            if isinstance(reply, ValueError):
                problems.append(f"row {row.id}: {reply}")
            else:
                replies.append((row, reply))
        return replies

    def _replies(self, asked: Sequence[tuple[Row, list[Any]]]) -> list[list[Segment]]:
        return self.pipe(
            [row.prompt for row, _ in asked],
            [images for _, images in asked],
            generator=[named_generator(row.id, self.seed) for row, _ in asked],
            **self.options,
        ).segments


def _open(image: str | bytes) -> Any:
    if isinstance(image, bytes):
        return open_image(image)
    try:
        with cast(Any, fsspec.open(image, "rb")) as file:
            content = file.read()
    except FileNotFoundError:
        raise ImageError(f"{image}: no such file") from None
    except Exception as error:  # each file system has errors of its own
        raise ImageError(f"{image}: cannot be read ({error})") from None
    return open_image(content, name=image)
