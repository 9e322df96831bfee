"""What a training program leaves behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import DiffusionPipeline, SchedulerMixin
from torch import nn
from transformers import PreTrainedTokenizerBase, ProcessorMixin

from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.readers.opening import open_model
from minigpt5.utils.files import whole_folder
from minigpt5.utils.integrity import check_finite
from minigpt5.weights import is_pipeline

# The file that each kind of folder has.
_MARKS = {
    DiffusionPipeline: "model_index.json",
    SchedulerMixin: "scheduler_config.json",
    PreTrainedTokenizerBase: "tokenizer_config.json",
    ProcessorMixin: "processor_config.json",
    nn.Module: "config.json",
}


def open_result(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, ...]:
    """What `save_result` wrote together: a pipeline, or a reader's model and its processor.

    Raises:
        OSError, ValueError: if it cannot be opened.
    """
    if is_pipeline(folder):
        return (MiniGPT5Pipeline.from_pretrained(folder, dtype=dtype),)
    return open_model(folder, dtype)


def save_result(result: Any, folder: Path, *beside: Any) -> None:
    """Write what has `save_pretrained`, such as a pipeline or a model, whole or not at all, its weights in fp16.

    Args:
        beside: what else is saved there, such as a model's processor.

    Raises:
        ValueError: if a weight is not finite in fp16.
        OSError: if the folder cannot be written, or holds something else.
    """
    parts = result.components.values() if isinstance(result, DiffusionPipeline) else [result]
    if isinstance(result, (DiffusionPipeline, nn.Module)):
        result.to("cpu", torch.float16)
    for part in parts:
        if isinstance(part, nn.Module):
            check_finite(part.state_dict(), f"{folder}: {type(part).__name__} is not written in float16")
    mark = next(mark for kind, mark in _MARKS.items() if isinstance(result, kind))
    with whole_folder(folder, mark) as new:
        saved: tuple[Any, ...] = (result, *beside)
        for one in saved:
            one.save_pretrained(new)
