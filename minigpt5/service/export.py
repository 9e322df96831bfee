"""Feedback as data to train on: conversations in the layout `chat`, and preferences beside them.

    train.jsonl, validation.jsonl                           {"messages": […]}, the last one what is to be replied
    preferences/train.jsonl, preferences/validation.jsonl   {"prompt": […], "chosen": […], "rejected": […]}
    pictures/                                               PNG files by the first digits of their SHA-256
    feedback.json                                           how much of each there is

`prompt` is messages, and `chosen` and `rejected` are lists of the one message that replies to them: the form that TRL
calls conversational. A picture's path is relative to the file that names it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from minigpt5.service.feedback import Feedback, FeedbackStore, stored_messages, stored_parts
from minigpt5.utils.files import check_replaceable, whole_folder, write_json
from minigpt5.utils.json_files import read_json

RECORD = "feedback.json"
SPLITS = ("train", "validation")
# What an export writes.
_OWN = re.compile(r"feedback\.json|(preferences/)?(train|validation)\.jsonl|pictures/[0-9a-f]{20}\.png")
# One request in so many is kept to judge by.
VALIDATION_SHARE = 10

Parts = list[dict[str, Any]]


class _Request:
    """What was asked once or more often, and what was thought of the replies."""

    def __init__(self, messages: list[dict[str, Any]]):
        self.messages = messages
        self.good: list[Parts] = []
        self.bad: list[Parts] = []
        self.corrected: list[tuple[Parts, Parts]] = []

    @property
    def split(self) -> str:
        """Where it belongs, whatever else is asked; all replies to it are of one split."""
        digest = hashlib.sha256(json.dumps(self.messages, sort_keys=True).encode()).digest()
        return SPLITS[int.from_bytes(digest[:8]) % VALIDATION_SHARE == 0]

    def add(self, row: Feedback, pictures: dict[str, bytes]) -> None:
        """Take a reply and what was thought of it; what is empty, or corrects nothing, teaches nothing."""
        reply = stored_parts(row.reply, pictures)
        correction = stored_parts(row.correction or [], pictures)
        if correction and correction != reply:
            self.good.append(correction)
            self.corrected.append((correction, reply))
            if reply and row.rating == "down":
                self.bad.append(reply)
        elif reply:
            (self.good if row.rating == "up" else self.bad).append(reply)

    def conversations(self) -> Iterator[dict[str, Any]]:
        """Corrections and what was liked, each once."""
        for reply in _once(self.good):
            yield {"messages": [*self.messages, *_said(reply)]}

    def preferences(self) -> Iterator[dict[str, Any]]:
        """Corrections over what they correct, and all that is good over all that was disliked.

        Where both say the same and differ in their pictures' looks alone, words have nothing to learn.
        """
        for chosen, rejected in _once([*self.corrected, *product(self.good, self.bad)]):
            if rejected and _words(chosen) != _words(rejected):
                yield {"prompt": self.messages, "chosen": _said(chosen), "rejected": _said(rejected)}


def export_feedback(store: str | os.PathLike, out: str | os.PathLike) -> dict[str, Any]:
    """Write what people think of replies as data to train on.

    A correction, or a reply with a thumb up, is a conversation. One request in ten, by a hash of what was asked, goes
    to the split validation, so a request stays in its split however much feedback comes.

    Args:
        store: the file of a `FeedbackStore`.
        out: the new folder, or one of an earlier export, which it replaces.

    Returns:
        How many `conversations` and `preferences` there are in each split, as `feedback.json` has them.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is another kind of file or broken, or too little is in it for two splits.
        OSError: if the folder holds other files, or cannot be written; then nothing is.
    """
    if not Path(store).is_file():
        raise FileNotFoundError(f"{store} is no file of feedback; the Studio makes one with the first thumb")
    check_replaceable(out, RECORD, _OWN)
    record = Path(out, RECORD)
    if record.exists() and read_json(record, dict).keys() != {"conversations", "preferences"}:
        raise FileExistsError(f"{record} is of no export; name a new folder")
    pictures: dict[str, bytes] = {}
    requests: dict[str, _Request] = {}
    for row in FeedbackStore(store):
        messages = stored_messages(row.messages, pictures)
        requests.setdefault(json.dumps(messages), _Request(messages)).add(row, pictures)
    tables: dict[str, dict[str, list[dict[str, Any]]]] = {
        "conversations": {split: [] for split in SPLITS},
        "preferences": {split: [] for split in SPLITS},
    }
    for request in requests.values():
        tables["conversations"][request.split] += request.conversations()
        tables["preferences"][request.split] += request.preferences()
    counts = {kind: {split: len(rows) for split, rows in splits.items()} for kind, splits in tables.items()}
    for split, count in counts["conversations"].items():
        if not count:
            told = f"one request in {VALIDATION_SHARE} is of validation"
            raise ValueError(f"{store} has no correction and no thumb up for the split {split} ({told}): gather more")
    with whole_folder(out, RECORD, _OWN) as folder:
        used: set[str] = set()
        for kind, below, place in (("conversations", ".", "pictures"), ("preferences", "preferences", "../pictures")):
            (folder / below).mkdir(exist_ok=True)
            for split, rows in tables[kind].items():
                lines = [json.dumps(_placed(row, place, used), ensure_ascii=False) + "\n" for row in rows]
                (folder / below / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")
        (folder / "pictures").mkdir()
        for digest in used:
            (folder / "pictures" / _name(digest)).write_bytes(pictures[digest])
        write_json(folder / RECORD, counts)
    return counts


def _placed(value: Any, place: str, used: set[str]) -> Any:
    """A row whose pictures are files in the folder `place`; notes which."""
    if isinstance(value, Mapping):
        if value.get("type") == "image":
            used.add(value["image"])
            return {"type": "image", "image": f"{place}/{_name(value['image'])}"}
        return {name: _placed(each, place, used) for name, each in value.items()}
    return [_placed(each, place, used) for each in value] if isinstance(value, list) else value


def _name(digest: str) -> str:
    return f"{digest[:20]}.png"


def _said(parts: Parts) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": parts}]


def _words(parts: Parts) -> list[str | None]:
    """The texts of a reply, with `None` where a picture stands."""
    return [part.get("text") for part in parts]


def _once(values: Sequence[Any]) -> list[Any]:
    """Values in their order, without those that came before."""
    return list({json.dumps(value): value for value in values}.values())
