"""Boxes in pictures as vision-language models write them, and how far two of them overlap."""

from __future__ import annotations

import re
from collections.abc import Sequence

Box = Sequence[float]
"""Left, top, right and bottom in shares of the picture's width and height."""

_NUMBER = r"(-?\d{1,4}(?:\.\d+)?)"
_FOUR = ",".join([_NUMBER] * 4)
_FORMS = re.compile(
    # MiniGPT-v2's, in hundredths (arXiv 2310.09478, section 2.2).
    rf"\{{<{_NUMBER}><{_NUMBER}><{_NUMBER}><{_NUMBER}>\}}"
    # Qwen-VL's, in thousandths (arXiv 2308.12966), whose marks <box> and </box> a tokenizer may leave out.
    rf"|\({_NUMBER},{_NUMBER}\),?\({_NUMBER},{_NUMBER}\)"
    # CogVLM's, in thousandths (arXiv 2311.03079).
    rf"|\[\[{_FOUR}\]\]"
    # LLaVA-1.5's and SPHINX's, in shares.
    rf"|\[{_FOUR}\]"
)
# What is the whole side in each form.
_WHOLES = (100, 1000, 1000, 1)


def format_box(box: Box) -> str:
    """A box as MiniGPT-v2 writes it, in whole hundredths: `{<25><10><60><95>}`; what is outside is cut off."""
    return "{" + "".join(f"<{round(100 * inside(value))}>" for value in box) + "}"


def parse_box(text: str) -> tuple[float, ...] | None:
    """The first box that a text has; `None` where there is none.

    Read are MiniGPT-v2's `{<25><10><60><95>}`, Qwen-VL's `<box>(250,100),(600,950)</box>`, CogVLM's
    `[[250,100,600,950]]`, and the `[0.25, 0.10, 0.60, 0.95]` of LLaVA-1.5 and SPHINX, spaces or not. What is outside
    the picture is cut off; of the other three, what does not lie in it is no box but numbers.
    """
    for found in _FORMS.finditer(re.sub(r"\s", "", text)):
        form = (found.lastindex or 4) // 4 - 1
        told = [value for value in found.groups() if value is not None]
        left, top, right, bottom = (float(value) / _WHOLES[form] for value in told)
        lies_in_it = 0 <= left < right <= 1 and 0 <= top < bottom <= 1
        in_shares = form == len(_WHOLES) - 1
        if form == 0 or (lies_in_it and (not in_shares or any("." in value for value in told))):
            return tuple(map(inside, (left, top, right, bottom)))
    return None


def same_thing(one: Box, other: Box) -> bool:
    """Whether two boxes overlap by an intersection over union of 0.5 or more; what rounding takes off counts."""
    return iou(one, other) >= 0.5 - 1e-9


def inside(share: float) -> float:
    """A share of a picture's side, what is outside of it cut off."""
    return min(max(share, 0.0), 1.0)


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes; 0 where one has no area."""
    width, height = (min(one[i + 2], other[i + 2]) - max(one[i], other[i]) for i in (0, 1))
    overlap = max(width, 0) * max(height, 0)
    areas = sum(max(box[2] - box[0], 0) * max(box[3] - box[1], 0) for box in (one, other))
    return overlap / (areas - overlap) if overlap else 0.0
