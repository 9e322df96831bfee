"""Replies on disk: a folder with a record and pictures for each item, and the settings that made them.

A record is put in place when its pictures are, so an item that is there is whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from minigpt5.utils.files import write_json, write_picture
from minigpt5.utils.images import open_image
from minigpt5.utils.json_files import field, read_json

if TYPE_CHECKING:
    from minigpt5.evaluation.items import Item

SETTINGS, ASKED = "settings.json", "asked.json"


@dataclass(frozen=True)
class Reply:
    """A reply as it is kept: texts, and the paths of its pictures, in order."""

    segments: tuple[str | Path, ...]

    @property
    def text(self) -> str:
        """The texts, pictures left out."""
        return " ".join(part for part in self.segments if isinstance(part, str))

    @property
    def paths(self) -> list[Path]:
        """The paths of its pictures."""
        return [part for part in self.segments if isinstance(part, Path)]

    @property
    def pictures(self) -> list[Image.Image]:
        """Its pictures, opened."""
        return [open_image(path) for path in self.paths]


class ReplyFolder:
    """A system's replies to items, by their ids.

    Args:
        root: `settings.json`, `asked.json` and `replies/` are in it.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self.folder = self.root / "replies"

    @property
    def settings(self) -> dict[str, Any]:
        """What made the replies.

        Raises:
            FileNotFoundError: if no evaluation has been run into the folder.
        """
        path = self.root / SETTINGS
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; name a folder that an evaluation program wrote")
        return read_json(path)

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Note the settings in a new folder, or compare them with those noted.

        Raises:
            ValueError: if the folder holds replies that were made otherwise.
        """
        settings = json.loads(json.dumps(settings))
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.root / SETTINGS
        if not path.exists():
            write_json(path, settings)
            return
        before = self.settings
        for name in settings.keys() | before.keys():
            old, new = before.get(name), settings.get(name)
            if old != new:
                raise ValueError(f"{self.root} holds replies of {name} {old!r}, not {new!r}; name another folder")

    def note(self, items: Sequence[Item]) -> None:
        """Note what is asked, or compare it with what was.

        Raises:
            ValueError: if there is a reply to another question of the same id, as after data were replaced.
        """
        path = self.root / ASKED
        before: dict[str, str] = read_json(path) if path.exists() else {}
        now = {item.id: item.asked for item in items}
        for name, asked in now.items():
            if before.get(name, asked) != asked and name in self:
                raise ValueError(
                    f"{self.root} holds a reply to another question {name}, so the data have changed; "
                    "name another folder"
                )
        if not now.items() <= before.items():
            write_json(path, before | now)

    def __contains__(self, item_id: str) -> bool:
        return self._record(item_id).exists()

    def write(self, item_id: str, segments: Sequence[str | Image.Image]) -> None:
        """Keep a reply: pictures first, then its record."""
        record: list[dict[str, str]] = []
        for number, part in enumerate(segments, start=1):
            if isinstance(part, str):
                record.append({"text": part})
            else:
                name = f"{item_id}-{number}.png"
                write_picture(self.folder / name, part)
                record.append({"image": name})
        write_json(self._record(item_id), {"reply": record})
        self._refusal(item_id).unlink(missing_ok=True)

    def refuse(self, item_id: str, reason: str) -> None:
        """Note why there is no reply to an item."""
        write_json(self._refusal(item_id), {"refused": reason})

    def read(self, item_id: str) -> Reply:
        """A reply that was kept.

        Raises:
            FileNotFoundError: if there is none.
            ValueError: if its record is broken; names the file.
        """
        path = self._record(item_id)
        if not path.exists():
            raise FileNotFoundError(f"{self.root} holds no reply to item {item_id}; run its evaluation to the end")
        record = field(read_json(path), "reply", list, str(path))
        return Reply(
            tuple(
                field(part, "text", str, str(path))
                if isinstance(part, dict) and "text" in part
                else self.folder / field(part, "image", str, str(path))
                for part in record
            )
        )

    def refusal(self, item_id: str) -> str | None:
        """Why there is no reply to an item, where it could not be asked."""
        path = self._refusal(item_id)
        if item_id in self or not path.exists():
            return None
        return field(read_json(path), "refused", str, str(path))

    def _record(self, item_id: str) -> Path:
        return self.folder / f"{item_id}.json"

    def _refusal(self, item_id: str) -> Path:
        return self.folder / f"{item_id}.refused.json"
