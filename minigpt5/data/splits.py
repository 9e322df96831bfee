"""The splits of a data set, by the names of its files: which is to be trained with, and which to judge by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from glob import iglob
from pathlib import Path

from minigpt5.data.layouts import walk_files

# Where the split stands in the name of a layout's files, of which the first found counts.
SPLIT_FILES: dict[str, tuple[str, ...]] = {
    "cc3m": ("cc3m_{split}.tsv",),
    "cc3m-shards": ("{split}/*.tar",),
    "vist": ("{split}_cleaned.json",),
    "vist-raw": ("sis/{split}.story-in-sequence.json", "{split}.story-in-sequence.json"),
    "mmdialog": ("{split}/{split}_conversations.txt",),
    "chat": ("{split}.jsonl",),
    "chat-llava": ("{split}.json",),
}
# What the splits of a role are called, whatever stands behind (train2017, val_small); later ones where none of the
# earlier is there.
ROLES = {
    "train": (("train", "training"),),
    "validation": (("validation", "valid", "val", "dev"), ("test", "testing")),
}


def find_splits(root: Path, files: Sequence[str]) -> list[str]:
    """The splits in a folder.

    Args:
        files: names of files below it, in which `{split}` stands for the split and `*` for anything.
    """
    for name in files:
        before, *others = (
            re.escape(part).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*") for part in name.split("{split}")
        )
        pattern = re.compile("".join([before, "(?P<split>[^/]+)", "(?P=split)".join(others)]))
        # Unlike `Path.glob` both go into folders that are links.
        deep = "**" in name and root.is_dir()
        found = (path.relative_to(root).as_posix() for path in walk_files(root)) if deep else None
        matches = map(pattern.fullmatch, found or iglob(name.replace("{split}", "*"), root_dir=root))
        splits = sorted({match["split"] for match in matches if match})
        if splits:
            return splits
    return []


def choose_split(root: Path, layout: str, role: str, named: str | None = None, setting: str | None = None) -> str:
    """The split of a data set that is to be trained with, or to be judged by.

    Args:
        layout: of the folder, one of `SPLIT_FILES`.
        role: train or validation.
        named: by the user; otherwise it is told by its name.
        setting: where the user names it, for errors.

    Raises:
        FileNotFoundError: if there is none of that name or role; says which there are.
        ValueError: if several could be it.
    """
    setting = setting or f"{role}_split"
    if layout not in SPLIT_FILES:
        raise ValueError(f"no data set layout {layout!r}; the layouts are {', '.join(SPLIT_FILES)}")
    splits = find_splits(root, SPLIT_FILES[layout])
    if not splits:
        raise FileNotFoundError(f"{root} is missing, or no folder in the layout {layout}")
    there = f"{root} has {', '.join(splits)}"
    if named is not None:
        if named not in splits:
            raise FileNotFoundError(f"{setting}: there is no split {named}; {there}")
        return named
    for names in ROLES[role]:
        alike = [split for split in splits if re.split(r"[^a-z]", split.lower())[0] in names]
        if names[0] in alike:
            return names[0]
        if len(alike) == 1:
            return alike[0]
        if alike:
            raise ValueError(f"{setting} is not set, and {', '.join(alike)} could each be it; {there}")
    raise FileNotFoundError(f"{setting} is not set, and no split is called like one for {role}; {there}")
