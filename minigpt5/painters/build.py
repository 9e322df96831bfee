"""Diffusers pipelines made of the parts that another pipeline holds."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers
from diffusers import DiffusionPipeline
from torch import nn

# What a painter can be made of, beside what it can do without: the names that diffusers has for them.
PARTS = (
    "unet",
    "transformer",
    "vae",
    "scheduler",
    "text_encoder",
    "tokenizer",
    "text_encoder_2",
    "tokenizer_2",
    "text_encoder_3",
    "tokenizer_3",
    "guider",
)
# No pipeline needs them to paint from embeddings.
LEFT_OUT = ("safety_checker", "image_encoder", "feature_extractor", "ocr_guider", "processor", "pe", "pe_tokenizer")


def build_painter(
    painter_class: str, parts: Mapping[str, Any], settings: Mapping[str, Any] | None = None
) -> DiffusionPipeline:
    """A diffusers pipeline over these very parts; what it takes beyond them is `None`.

    Args:
        painter_class: name of the pipeline's class in diffusers.
        parts: modules, schedulers and tokenizers by their names.
        settings: plain values of its own, such as `add_watermarker`.

    Raises:
        ValueError: if diffusers has no such pipeline.
    """
    kind = getattr(diffusers, painter_class, None)
    if not (inspect.isclass(kind) and issubclass(kind, DiffusionPipeline)):
        raise ValueError(f"painter_class must be the name of a pipeline of diffusers, got {painter_class!r}")
    takes = inspect.signature(kind.__init__).parameters
    needed = [name for name, parameter in takes.items() if parameter.default is parameter.empty and name != "self"]
    given = dict.fromkeys(needed) | {name: part for name, part in parts.items() if name in takes}
    if "requires_safety_checker" in takes:
        given["requires_safety_checker"] = False
    # Some pipelines correct what they think is wrong in the configuration of a scheduler that they are made with.
    painter = kind(**given | dict(settings or {}) | {"scheduler": None})
    painter.register_modules(scheduler=parts.get("scheduler"))
    return painter


def take_apart(pipeline: DiffusionPipeline) -> tuple[dict[str, Any], dict[str, Any]]:
    """The parts of a pipeline that it paints with, and its plain settings: `build_painter`'s arguments."""
    components = pipeline.components
    parts = {name: part for name, part in components.items() if name in PARTS and part is not None}
    takes = inspect.signature(type(pipeline).__init__).parameters.keys() - components.keys()
    # Some pipelines keep a setting beside their configuration, such as the layers that perturbed attention is in.
    told = {name: pipeline.config.get(name, getattr(pipeline, name, None)) for name in sorted(takes)}
    plain = (bool, int, float, str, list, tuple)
    return parts, {n: v for n, v in told.items() if isinstance(v, plain) and n != "requires_safety_checker"}


def check_parts(pipeline: DiffusionPipeline) -> None:
    """See that a joined pipeline has a place for every network that a pipeline paints with.

    Raises:
        ValueError: naming those for which there is none.
    """
    strange = [
        name
        for name, part in pipeline.components.items()
        if isinstance(part, nn.Module) and name not in PARTS and name not in LEFT_OUT
    ]
    if strange:
        raise ValueError(f"{type(pipeline).__name__} paints with {', '.join(strange)}, which there is no place for")
