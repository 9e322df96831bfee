"""Boxes in pictures as vision-language models write them, and how far two of them overlap."""

from __future__ import annotations

import re
from collections.abc import Sequence

Box = Sequence[float]
"""Left, top, right and bottom in shares of the picture's width and height."""

_NUMBER = r"(\d{1,4})"
_FORMS = re.compile(
    # MiniGPT-v2's, in hundredths (arXiv 2310.09478, section 3.2).
    rf"\{{<{_NUMBER}><{_NUMBER}><{_NUMBER}><{_NUMBER}>\}}"
    # Qwen-VL's, in thousandths (arXiv 2308.12966), whose marks <box> and </box> a tokenizer may leave out.
    rf"|\({_NUMBER},{_NUMBER}\),\({_NUMBER},{_NUMBER}\)"
)


def format_box(box: Box) -> str:
    """A box as MiniGPT-v2 writes it, in whole hundredths: `{<25><10><60><95>}`."""
    return "{" + "".join(f"<{round(100 * value)}>" for value in box) + "}"


def parse_box(text: str) -> tuple[float, ...] | None:
    """The first box that a text has; `None` where there is none.

    Read are MiniGPT-v2's `{<25><10><60><95>}` and Qwen-VL's `<box>(250,100),(600,950)</box>`, spaces or not.
    """
    found = _FORMS.search(re.sub(r"\s", "", text))
    if found is None:
        return None
    numbers = [int(value) for value in found.groups() if value is not None]
    return tuple(value / (100 if found[1] else 1000) for value in numbers)


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes; 0 where one has no area."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    overlap = max(width, 0) * max(height, 0)
    areas = sum(max(box[2] - box[0], 0) * max(box[3] - box[1], 0) for box in (one, other))
    return overlap / (areas - overlap) if overlap else 0.0
