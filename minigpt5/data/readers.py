"""Readers of CC3M, VIST and MMDialog in the layouts that MiniGPT-5 was published with, as `datasets.Dataset`s.

Pictures are decoded when an item is read, not before.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Image, List, Value

_SEQUENCE = Features({"texts": List(Value("string")), "images": List(Image())})


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; is {path.parent} a folder in this data set's layout?")
    return path


def _read_json(path: Path) -> Any:
    try:
        return json.loads(_existing(path).read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: not JSON ({error.msg})") from error


def read_cc3m(root: str | Path, split: str) -> Dataset:
    """Columns `caption` and `image` from `cc3m_{split}.tsv`, whose header is caption, image_path; quotes as in CSV.

    Raises:
        FileNotFoundError: if the table is missing.
        ValueError: if its header or a line has other columns; names the file and the line.
    """
    table = _existing(Path(root) / f"cc3m_{split}.tsv")
    rows = []
    with open(table, encoding="utf-8", newline="") as file:
        lines = csv.reader(file, delimiter="\t")
        header = next(lines, [])
        if header != ["caption", "image_path"]:
            raise ValueError(f"{table}, line 1: columns are {header}, expected caption and image_path")
        for fields in lines:
            if len(fields) != 2:
                line = f"{table}, line {lines.line_num}"
                raise ValueError(f"{line}: {len(fields)} columns, expected caption and image_path")
            rows.append({"caption": fields[0], "image": str(table.parent / fields[1])})
    return Dataset.from_list(rows, features=Features({"caption": Value("string"), "image": Image()}))


def read_vist(root: str | Path, split: str) -> Dataset:
    """Columns `texts` and `images`, the steps of a story in order, from `{split}_cleaned.json` and its image mapping.

    Raises:
        FileNotFoundError: if one of the two files is missing.
        ValueError: if one is not JSON (names the file and the line), a step lacks an entry, or the mapping a picture.
    """
    root = Path(root)
    stories_file, mapping_file = root / f"{split}_cleaned.json", root / f"{split}_image_mapping.json"
    stories, mapping = _read_json(stories_file), _read_json(mapping_file)
    rows = []
    for story_id, steps in stories.items():
        for step in steps:
            absent = sorted({"caption", "image_id", "sequence_index"} - step.keys())
            if absent:
                raise ValueError(f"{stories_file}, story {story_id}: a step has no {absent[0]}")
        steps = sorted(steps, key=lambda step: step["sequence_index"])
        missing = [step["image_id"] for step in steps if step["image_id"] not in mapping]
        if missing:
            raise ValueError(f"{mapping_file} has no path for image_id {missing[0]} of story {story_id}")
        rows.append(
            {
                "texts": [step["caption"] for step in steps],
                "images": [str(root / mapping[step["image_id"]]) for step in steps],
            }
        )
    return Dataset.from_list(rows, features=_SEQUENCE)


def read_mmdialog(root: str | Path, split: str, cut_at_missing: bool = False) -> Dataset:
    """Columns `texts` and `images`, the turns of a talk; an image is `None` where a turn shows none.

    Read from `{split}/{split}_conversations.txt`, one JSON object a line; pictures lie beside it, by their media id.

    Args:
        cut_at_missing: end a talk before its first turn whose picture is missing, as the published code does, instead
            of refusing it: many of the data set's pictures can no longer be downloaded.

    Raises:
        FileNotFoundError: if that file is missing, or, without `cut_at_missing`, a picture it names.
        ValueError: if a line is not the JSON of a conversation; names the file and the line.
    """
    table = _existing(Path(root) / split / f"{split}_conversations.txt")
    pictures = {path.stem: str(path) for path in table.parent.iterdir() if path.suffix in (".jpg", ".png")}
    rows = []
    with open(table, encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            texts, images = [], []
            try:
                turns = [[dict(element) for element in turn["turn"]] for turn in json.loads(line)["conversation"]]
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{table}, line {number}: not a conversation ({error!r})") from error
            for turn in turns:
                media = [element["__MEDIA__"] for element in turn if "__MEDIA__" in element]
                if media and media[0] not in pictures:
                    if cut_at_missing:
                        break
                    raise FileNotFoundError(f"{table}, line {number}: no picture {media[0]} in {table.parent}")
                texts.append(" ".join(element["__TEXT__"] for element in turn if "__TEXT__" in element))
                images.append(pictures[media[0]] if media else None)
            rows.append({"texts": texts, "images": images})
    return Dataset.from_list(rows, features=_SEQUENCE)
