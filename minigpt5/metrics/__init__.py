"""Figures for text, pictures, dialogues and StoryWorld: torchmetrics `Metric`s with one manner of use.

`update` takes whole replies (PIL pictures or tensors, strings), `compute` gives figures by name, and what keeps an item
a row (`ItemMetric`) gives bootstrap intervals too. Nothing is downloaded: missing weights raise `MissingWeights`, which
says where they come from and where to put them. See docs/metrics.md.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from minigpt5.metrics.registry import METRICS

# Names are imported when they are first used: their libraries are heavy, and some are in the extra `eval` alone.
_MODULES = {
    "encoders": ("ClipEncoder", "OpenClipEncoder", "TransformersClipEncoder", "load_clip_encoder"),
    "intervals": (
        "Interval",
        "bootstrap_interval",
        "bootstrap_intervals",
        "crossed_interval",
        "hierarchical_interval",
        "paired_difference",
        "wilson_interval",
    ),
    "items": ("ItemMetric",),
    "published": ("character_bleu_as_published", "story_fid_as_published"),
    "storyworld": ("shuffled", "storyworld_bounds"),
    "weights": ("MissingWeights",),
}
_HOME = {name: f"minigpt5.metrics.{module}" for module, names in _MODULES.items() for name in names}
_HOME |= {entry.home.split(".")[1]: f"minigpt5.metrics.{entry.home.split('.')[0]}" for entry in METRICS}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'minigpt5.metrics' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
