"""Readers of CC3M, VIST, MMDialog, LLaVA-Instruct, StoryWorld and one's own chats, through `datasets`.

Each takes a folder and a split, and gives a `Dataset`, or with `streaming` an `IterableDataset` that reads its file as
it goes. Pictures are decoded when an item is read, not before: one that is missing or broken fails there
(`minigpt5.data.tolerant` goes on to another). For many processes, split what is opened and shuffled with one seed by
`datasets.distributed.split_dataset_by_node`; a `DataLoader`'s workers share a stream by themselves.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice, takewhile
from pathlib import Path
from typing import Any, cast

from datasets import Dataset, Features, Image, IterableDataset, List, Value, concatenate_datasets
from datasets.exceptions import DatasetGenerationError

from minigpt5.data.layouts import (
    WHOLE,
    Part,
    Row,
    cc3m_rows,
    chat_rows,
    llava_rows,
    mmdialog_rows,
    preference_rows,
    vist_raw_rows,
    vist_rows,
)
from minigpt5.data.shards import find_shards, shard_rows

# Streams have this many parts, which 2, 3, 4, 6, 8, 12, 16, 24 and 48 processes share evenly.
PARTS = 48

_PAIR = Features({"caption": Value("string"), "image": Image()})
_SEQUENCE = Features({"texts": List(Value("string")), "images": List(Image())})
_MESSAGES = List(
    {
        "role": Value("string"),
        "content": List({"type": Value("string"), "text": Value("string"), "image": Image()}),
    }
)
_CHAT = Features({"messages": _MESSAGES})
_PREFERENCE = Features({"prompt": _MESSAGES, "chosen": _MESSAGES, "rejected": _MESSAGES})

Layout = Callable[..., Iterator[Any]]


def _stored(path: str | None) -> dict | None:
    # As `datasets` stores it: of a bare path deep in a row whose first is None it would take no notice.
    return None if path is None else {"path": path, "bytes": None}


def _pair(row: Row) -> dict[str, Any]:
    return {"caption": row.texts[0], "image": _stored(row.pictures[0] and row.pictures[0].path)}


def _sequence(row: Row) -> dict[str, Any]:
    return {"texts": row.texts, "images": [_stored(picture and picture.path) for picture in row.pictures]}


def _until_missing(row: Row) -> dict[str, Any]:
    pictures = list(takewhile(lambda picture: picture is None or os.path.exists(picture.path), row.pictures))
    return _sequence(replace(row, texts=row.texts[: len(pictures)], pictures=pictures))


def _chat(messages: list[dict]) -> dict[str, Any]:
    return {"messages": _messages(messages)}


def _preference(row: dict[str, list[dict]]) -> dict[str, Any]:
    return {name: _messages(messages) for name, messages in row.items()}


def _messages(messages: list[dict]) -> list[dict]:
    return [
        row | {"content": [part | {"image": _stored(part["image"])} for part in row["content"]]} for row in messages
    ]


def _items(parts: list[Part], rows: Callable[..., Iterator], columns: Callable[[Any], dict]) -> Iterator[dict]:
    for part in parts:
        yield from map(columns, rows(part=part))


def _open(
    layout: Layout, root: str | Path, split: str, columns: Callable[[Any], dict], features: Features, streaming: bool
) -> Dataset | IterableDataset:
    rows = partial(layout, root, split)
    if streaming:
        # A missing file or a wrong header is told now, not at the first step.
        next(rows(), None)
        parts = [(index, PARTS) for index in range(PARTS)]
        return IterableDataset.from_generator(
            _items, features=features, gen_kwargs={"parts": parts, "rows": rows, "columns": columns}
        )
    items = _items([WHOLE], rows, columns)
    # In chunks: millions of rows as Python objects would take many times the memory of their table.
    chunks = iter(lambda: list(islice(items, 20_000)), [])
    tables = [Dataset.from_list(chunk, features=features) for chunk in chunks]
    return concatenate_datasets(tables) if tables else Dataset.from_dict({name: [] for name in features}, features)


def read_cc3m(root: str | Path, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    """Columns `caption` and `image` from `cc3m_{split}.tsv`, whose header is caption, image_path; quotes as in CSV.

    Raises:
        FileNotFoundError: if the table is missing.
        ValueError: if its header or a line has other columns; names the file and the line.
    """
    return _open(cc3m_rows, root, split, _pair, _PAIR, streaming)


def read_cc3m_shards(root: str | Path, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    """Columns `caption` and `image` from the webdataset shards of img2dataset, `{split}/*.tar`.

    Without `streaming`, `datasets` copies all of them, pictures and all, to its cache first.

    Raises:
        FileNotFoundError: if there are no shards.
        ValueError: if a shard is cut off or broken, or holds what cannot be read; names the shard and the key.
    """
    shards = find_shards(Path(root) / split)
    if next(shard_rows(shards), None) is None:
        raise ValueError(f"{Path(root) / split}: there is nothing in its shards")
    if streaming:
        return IterableDataset.from_generator(shard_rows, features=_PAIR, gen_kwargs={"shards": shards})
    # A cache is found by what it was made from: a shard's size and time tell one that was replaced.
    stamps = [(shard, os.stat(shard).st_size, os.stat(shard).st_mtime_ns) for shard in shards]
    try:
        return Dataset.from_generator(_stamped_rows, features=_PAIR, gen_kwargs={"stamps": stamps})
    except DatasetGenerationError as error:
        raise (error.__cause__ if isinstance(error.__cause__, (ValueError, OSError)) else error) from None


def _stamped_rows(stamps: list[tuple[str, int, int]]) -> Iterator[dict[str, Any]]:
    yield from shard_rows([shard for shard, *_ in stamps])


def read_vist(root: str | Path, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    """Columns `texts` and `images`, the steps of a story in order, from `{split}_cleaned.json` and its image mapping.

    Raises:
        FileNotFoundError: if one of the two files is missing.
        ValueError: if one is not JSON, a step lacks an entry, or the mapping a picture; names the file, line and field.
    """
    return _open(vist_rows, root, split, _sequence, _SEQUENCE, streaming)


def read_vist_raw(root: str | Path, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    """Columns `texts` and `images` from VIST as it is distributed, stories in sequence.

    Read from `sis/{split}.story-in-sequence.json` (or beside `images/`) and `images/{split}/` (or `images/`), where a
    picture is named by its photo id.

    Raises:
        FileNotFoundError: if the table is missing.
        ValueError: if it is not JSON or an annotation lacks an entry; names the file, annotation and field.
    """
    return _open(vist_raw_rows, root, split, _sequence, _SEQUENCE, streaming)


def read_mmdialog(
    root: str | Path, split: str, cut_at_missing: bool = False, streaming: bool = False
) -> Dataset | IterableDataset:
    """Columns `texts` and `images`, the turns of a talk; an image is `None` where a turn shows none.

    Read from `{split}/{split}_conversations.txt`, one JSON object a line; pictures lie beside it, by their media id.

    Args:
        cut_at_missing: end a talk before its first turn whose picture is missing, as the published code does: many of
            the data set's pictures can no longer be downloaded.

    Raises:
        FileNotFoundError: if that file is missing.
        ValueError: if a line is not the JSON of a conversation; names the file, line and field.
    """
    columns = _until_missing if cut_at_missing else _sequence
    return _open(mmdialog_rows, root, split, columns, _SEQUENCE, streaming)


def read_chat(root: str | Path, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    """Column `messages`, each a conversation as the processor's `training_batch` takes it, from `{split}.jsonl`.

    A line is `{"messages": [{"role": …, "content": …}, …]}`. A content is a string or a list of
    `{"type": "text", "text": …}` and `{"type": "image", "image": PATH}`, paths relative to the file. The last message
    is the reply to be learnt.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if a line is anything else; names the file, line and field.
    """
    return _open(chat_rows, root, split, _chat, _CHAT, streaming)


def read_preferences(root: str | Path, split: str) -> Dataset:
    """Columns `prompt`, `chosen` and `rejected`, each messages as of `read_chat`, from `{split}.jsonl`.

    A line is `{"prompt": […], "chosen": […], "rejected": […]}`: `chosen` is the better reply to the prompt, one message
    of the assistant's, and `rejected` the worse one.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if a line is anything else; names the file, line and field.
    """
    return cast(Dataset, _open(preference_rows, root, split, _preference, _PREFERENCE, streaming=False))


def read_llava(root: str | Path, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    """Column `messages` as `read_chat` has it, a row for each reply of LLaVA-Instruct's conversations, `{split}.json`.

    Raises:
        FileNotFoundError: if the file is missing.
        ValueError: if it is no list of such conversations; names the file, conversation, turn and field.
    """
    return _open(llava_rows, root, split, _chat, _CHAT, streaming)


READERS: dict[str, Callable[..., Dataset | IterableDataset]] = {
    "cc3m": read_cc3m,
    "cc3m-shards": read_cc3m_shards,
    "vist": read_vist,
    "vist-raw": read_vist_raw,
    "mmdialog": read_mmdialog,
    "chat": read_chat,
    "chat-llava": read_llava,
}


def open_dataset(
    kind: str, root: str | Path, split: str, streaming: bool = False, seed: int | None = None
) -> Dataset | IterableDataset:
    """A data set by the name of its layout.

    Args:
        kind: one of `READERS`.
        seed: shuffles: wholly, or where it streams in a buffer of 1000 rows filled from several parts. `None` keeps the
            order of the file. A stream's `set_epoch` gives each epoch an order of its own.

    Raises:
        ValueError: for an unknown kind, and what its reader raises.
    """
    if kind not in READERS:
        raise ValueError(f"no data set layout {kind!r}; the layouts are {', '.join(READERS)}")
    rows = READERS[kind](root, split, streaming=streaming)
    return rows if seed is None else rows.shuffle(seed=seed)
