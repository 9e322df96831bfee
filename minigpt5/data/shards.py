"""The webdataset shards of img2dataset, read where they lie: of each key a caption (`.txt`) and a picture.

The members of a key need not stand together, and each key has a picture of any ending.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from minigpt5.data.layouts import PICTURE_ENDINGS, existing
from minigpt5.utils.json_files import decode_text, field, parse_json

Members = dict[str, tarfile.TarInfo]


def find_shards(folder: Path) -> list[str]:
    """The shards in a folder.

    Raises:
        FileNotFoundError: if there are none.
        ValueError: if one is cut off.
    """
    shards = sorted(map(str, existing(folder).glob("*.tar")))
    if not shards:
        raise FileNotFoundError(f"{folder} holds no .tar file; img2dataset writes them as --output_format webdataset")
    cut_off = [shard for shard in shards if not _ends_as_tar(shard)]
    if cut_off:
        raise ValueError(f"{cut_off[0]} and {len(cut_off) - 1} other shards are cut off; download or delete them")
    return shards


def _ends_as_tar(shard: str) -> bool:
    """Whether a file ends with a tar's two empty blocks: a download that broke off does not."""
    with open(shard, "rb") as file:
        file.seek(max(0, os.stat(shard).st_size - 1024))
        return file.read() == bytes(1024)


def shard_rows(shards: list[str]) -> Iterator[dict[str, Any]]:
    """`caption` and `image` of each key, as `datasets` stores them.

    A key without a caption gives `None`; one without a picture no bytes, so that its opening fails and names it.

    Raises:
        ValueError: naming shard and member, if a shard is no whole tar, a caption not UTF-8, a sidecar not JSON, or a
            key has two pictures.
    """
    for shard in shards:
        samples = _samples(shard)
        with open(shard, "rb") as file:
            for key, members in samples.items():
                yield _row(file, f"{shard}/{key}", members)


def _row(file: BinaryIO, place: str, members: Members) -> dict[str, Any]:
    def read(ending: str) -> bytes:
        file.seek(members[ending].offset_data)
        return file.read(members[ending].size)

    told = parse_json(read("json"), f"{place}.json") if "json" in members else {}
    caption = None
    if "txt" in members:
        caption = decode_text(read("txt"), f"{place}.txt").strip()
    elif isinstance(told, dict) and told.get("caption") is not None:
        caption = field(told, "caption", str, f"{place}.json")
    pictures = [ending for ending in members if f".{ending.rsplit('.', 1)[-1]}" in PICTURE_ENDINGS]
    if len(pictures) > 1:
        raise ValueError(f"{place}: two pictures, {' and '.join(pictures)}")
    if not pictures:
        return {"caption": caption, "image": {"path": f"{place}, which holds {', '.join(members)}", "bytes": b""}}
    return {"caption": caption, "image": {"path": f"{place}.{pictures[0]}", "bytes": read(pictures[0])}}


def _samples(shard: str) -> dict[str, Members]:
    """The members of each key by their endings: what stands behind the first dot of their names."""
    samples: dict[str, Members] = {}
    for member in _members(shard):
        folder, name = os.path.split(member.name)
        key, dot, ending = name.partition(".")
        if member.isreg() and not member.issparse() and key and dot:
            # What is not UTF-8 in a name could not be told either.
            place = os.path.join(folder, key).encode(errors="replace").decode()
            samples.setdefault(place, {})[ending.lower()] = member
    return samples


def _members(shard: str) -> list[tarfile.TarInfo]:
    try:
        with tarfile.open(shard, "r:") as tar:
            members, end = tar.getmembers(), tar.offset
    except Exception as error:  # tarfile raises almost anything on broken headers
        raise ValueError(f"{shard}: not a whole tar ({error})") from None
    with open(shard, "rb") as file:
        file.seek(end)
        while block := file.read(1 << 16):
            # tarfile takes a broken header for the end.
            if block.strip(b"\0"):
                raise ValueError(f"{shard}: not a whole tar (broken behind member {len(members)}, byte {end})")
    return members
