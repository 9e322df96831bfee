"""Figures for text, pictures, dialogues and StoryWorld: torchmetrics `Metric`s with one manner of use.

`update` takes whole replies (PIL pictures or tensors, strings), `compute` gives figures by name, and what keeps an item
a row (`ItemMetric`) gives bootstrap intervals too. Nothing is downloaded: missing weights raise `MissingWeights`, which
says where they come from and where to put them. See docs/metrics.md.
"""

from __future__ import annotations

from importlib import import_module

# Names are imported when they are first used: their libraries are heavy, and some are in the extra `eval` alone.
_MODULES = {
    "dialogue": ("MMRelevanceMMDialog", "MMRelevancePerTurn", "PictureDecision"),
    "encoders": ("ClipEncoder", "OpenClipEncoder", "TransformersClipEncoder", "load_clip_encoder"),
    "intervals": ("Interval", "bootstrap_interval", "paired_difference", "wilson_interval"),
    "items": ("ItemMetric",),
    "pictures": (
        "ClipImageSimilarity",
        "ClipTextSimilarity",
        "FrechetInceptionDistance",
        "HPSv2",
        "InceptionScore",
        "KernelInceptionDistance",
        "PickScore",
    ),
    "published": ("character_bleu_as_published", "story_fid_as_published"),
    "storyworld": ("HeroIdentity", "StoryWorldPictures", "TextAccuracy", "shuffled", "storyworld_bounds"),
    "text": ("Meteor", "RougeL", "SentenceSimilarity", "WordBLEU"),
    "weights": ("MissingWeights",),
}
_HOME = {name: f"minigpt5.metrics.{module}" for module, names in _MODULES.items() for name in names}

__all__ = sorted(_HOME)


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'minigpt5.metrics' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
