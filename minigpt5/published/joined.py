"""Pipelines in published shapes by name, without weights: what a dry run counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DiffusionPipeline
from torch import nn

from minigpt5.joining import new_pipeline
from minigpt5.painters.shapes import flux_1, sana_0_6b
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.published.shapes import random_pipeline, stand_in_tokenizer
from minigpt5.readers.shapes import qwen2_5_vl

N_VOKENS = 64


def _joined(reader: Any, painter: DiffusionPipeline, dtype: torch.dtype) -> MiniGPT5Pipeline:
    """The two with the connector of queries between; the reader's own tokenizer would have to be downloaded."""
    for part in (reader, *painter.components.values()):
        if isinstance(part, nn.Module):
            part.to(dtype).requires_grad_(False)
    return new_pipeline(reader, stand_in_tokenizer(), painter, N_VOKENS, connector="queries")


SHAPES: dict[str, Callable[[torch.dtype], MiniGPT5Pipeline]] = {
    "minigpt5-7b": lambda dtype: random_pipeline(dtype=dtype, device="meta"),
    "qwen2.5-vl-3b+sana-0.6b": lambda dtype: _joined(qwen2_5_vl("3b"), sana_0_6b(), dtype),
    "qwen2.5-vl-7b+flux.1": lambda dtype: _joined(qwen2_5_vl("7b"), flux_1(), dtype),
}
