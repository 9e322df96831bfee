"""The drawn pictures of the npm packages `emoji-datasource-google` and `emoji-datasource-twitter`, with their names."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from minigpt5.data.layouts import WHOLE, Part, PictureFile, Row, existing
from minigpt5.utils.json_files import field, read_json

SETS = ("google", "twitter")
# One name in so many is held back.
HELD_BACK = 12
TONES = {
    "1F3FB": "light",
    "1F3FC": "medium-light",
    "1F3FD": "medium",
    "1F3FE": "medium-dark",
    "1F3FF": "dark",
}


def emoji_rows(root: str | Path, split: str, part: Part = WHOLE) -> Iterator[Row]:
    """Names and pictures of one split, from the package's `emoji.json` and `img/SET/64/`.

    A name that is drawn in several skin tones gives a row for each: "waving hand sign, medium skin tone". Which are
    held back depends on the name alone: in `validation` are those that `train` shows in another tone, in `test` those
    of which it shows nothing.
    """
    root = Path(root)
    table = existing(root / "emoji.json")
    drawn = next((name for name in SETS if (root / "img" / name / "64").is_dir()), None)
    if drawn is None:
        raise FileNotFoundError(f"{root}/img holds none of {', '.join(SETS)} with pictures of 64 pixels")
    named = _split(_named(table, root / "img" / drawn / "64", f"has_img_{drawn}"), split)
    yield from islice(named, part[0], None, part[1])


def _named(table: Path, folder: Path, has_picture: str) -> Iterator[list[Row]]:
    """The rows of each name."""
    for number, entry in enumerate(read_json(table, list)):
        place = f"{table}, [{number}]"
        name = field(entry, "name", str, place).lower()
        variations = field(entry, "skin_variations", dict, place) if "skin_variations" in entry else {}
        rows = []
        for tones, drawing in ((None, entry), *variations.items()):
            where = place if tones is None else f"{place}.skin_variations[{tones}]"
            if isinstance(drawing, dict) and not drawing.get(has_picture):
                continue
            image = field(drawing, "image", str, where)
            said = name if tones is None else f"{name}, {_skin(tones, where)}"
            rows.append(Row(where, image, [said], [PictureFile(image, str(folder / image))]))
        yield rows


def _split(named: Iterable[list[Row]], split: str) -> Iterator[Row]:
    for rows in named:
        held_back = [_is_held_back(row.texts[0]) for row in rows]
        instead = "test" if all(held_back) else "validation"
        yield from (row for row, held in zip(rows, held_back, strict=True) if split == (instead if held else "train"))


def _skin(tones: str, place: str) -> str:
    try:
        return " and ".join(TONES[tone] for tone in tones.split("-")) + " skin tone"
    except KeyError:
        raise ValueError(f"{place}: {tones} is no skin tone; they are {', '.join(TONES)}") from None


def _is_held_back(name: str) -> bool:
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:4], "big") % HELD_BACK == 0
