"""Picture files without what they say beside their pixels, which decoders may stumble over."""

from __future__ import annotations

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
# What pixels mean: JFIF's segment and Adobe's, a PNG's transparent colour.
MEANING = (0xE0, 0xEE, b"tRNS")


def strip_metadata(data: bytes) -> bytes | None:
    """A PNG without its ancillary chunks or a JPEG without its APP segments; `None` of any other file."""
    if data.startswith(PNG):
        return _strip_png(data)
    return _strip_jpeg(data) if data.startswith(JPEG) else None


def _strip_png(data: bytes) -> bytes:
    kept, at = [PNG], len(PNG)
    while at < len(data):
        name = data[at + 4 : at + 8]
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        if name[:1].isupper() or name in MEANING:  # critical chunks have a capital
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _strip_jpeg(data: bytes) -> bytes:
    kept, at = [JPEG], len(JPEG)
    # Behind the start of the scan come the pixels.
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] != b"\xda":
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if not 0xE0 <= data[at + 1] <= 0xEF or data[at + 1] in MEANING:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])
