"""What Divter learns from: StoryWorld's talks with the pictures of replies written as a mark and their description."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from minigpt5.data.layouts import Row, mmdialog_rows
from minigpt5.evaluation.storyworld import read_truth
from minigpt5.storyworld.language import plain_caption
from minigpt5.storyworld.scene import Scene
from minigpt5.utils.files import whole_file


def write_divter_chats(talks: Path, out: Path, mark: str = "[DST]", count: int | None = None) -> None:
    """Write `{split}.jsonl`, in the layout of one's own chats, for train and validation.

    A chat is a talk up to a turn of the second speaker, whose picture, if any, is told in words (Divter, Sun et al.,
    ACL 2022, section 4.1); pictures of earlier turns are shown.

    Args:
        talks: folder in MMDialog's layout that StoryWorld wrote, with its ground truth.
        count: only the first talks of each split.

    Raises:
        FileNotFoundError: if the talks or their ground truth are missing.
    """
    for split in ("train", "validation"):
        truth = read_truth(talks, split)
        with whole_file(out / f"{split}.jsonl") as path, open(path, "w", encoding="utf-8") as file:
            for row in islice(mmdialog_rows(talks, split), count):
                file.writelines(json.dumps({"messages": chat}) + "\n" for chat in _chats(row, truth, mark))


def _chats(row: Row, truth: dict[str, Scene], mark: str) -> Iterator[list[dict[str, Any]]]:
    shown: list[dict[str, Any]] = []
    for turn, (text, picture) in enumerate(zip(row.texts, row.pictures, strict=True)):
        role = ("user", "assistant")[turn % 2]
        if role == "assistant":
            told = f"{text} {mark} {plain_caption(truth[picture.path])}" if picture else text
            yield [*shown, {"role": role, "content": [{"type": "text", "text": told}]}]
        content = [{"type": "text", "text": text}]
        if picture:
            content.append({"type": "image", "image": str(Path(picture.path).resolve())})
        shown.append({"role": role, "content": content})
