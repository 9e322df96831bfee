"""Picture files without what they say beside their pixels, which decoders may stumble over."""

from __future__ import annotations

from collections.abc import Iterator

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# What pixels mean: a PNG's transparent colour, the segments of JFIF and Adobe.
MEANING = {b"tRNS", 0xE0, 0xEE}
# What tells how they are turned.
EXIF = {b"eXIf", 0xE1}


def without_metadata(data: bytes) -> Iterator[bytes]:
    """A PNG or JPEG with its pixels and EXIF alone, then with its pixels alone; nothing of any other file."""
    strip = _strip_png if data.startswith(PNG) else _strip_jpeg if data.startswith(JPEG) else None
    if strip:
        yield strip(data, MEANING | EXIF)
        yield strip(data, MEANING)


def _strip_png(data: bytes, kept: set) -> bytes:
    chunks, at = [PNG], len(PNG)
    while at < len(data):
        name = data[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if name[:1].isupper() or name in kept:  # critical chunks have a capital
            chunks.append(data[at:end])
        at = end
    return b"".join(chunks)


def _strip_jpeg(data: bytes, kept: set) -> bytes:
    segments, at = [JPEG], len(JPEG)
    # Behind the start of the scan come the pixels.
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if not 0xE0 <= data[at + 1] <= 0xEF or data[at + 1] in kept:
            segments.append(data[at:end])
        at = end
    return b"".join([*segments, data[at:]])
