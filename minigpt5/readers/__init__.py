"""What reads: a model of transformers and its processor, behind one seam.

What stands between reading and painting needs no more than

    processor = add_vokens(model, processor, n_vokens=64)
    reader = reader_of(model, processor)
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from minigpt5.readers.cache import ReaderCache
from minigpt5.readers.composed import ComposedConfig, ComposedReader
from minigpt5.readers.generic import Reader, States
from minigpt5.readers.instructblip import InstructBlipReader
from minigpt5.readers.minigpt4 import MiniGPT4Reader
from minigpt5.readers.paligemma import PaliGemmaReader
from minigpt5.readers.vokens import add_vokens

__all__ = ["Reader", "ReaderCache", "States", "add_vokens", "reader_of"]

# By the configuration's `model_type`; every other family is read by `Reader` itself.
FAMILIES = {
    "blip-2": MiniGPT4Reader,
    "instructblip": InstructBlipReader,
    "paligemma": PaliGemmaReader,
    ComposedConfig.model_type: ComposedReader,
}


def reader_of(
    model: PreTrainedModel, processor: ProcessorMixin | PreTrainedTokenizerBase, layers: Sequence[int] = (-1,)
) -> Reader:
    """The reader that a model and its processor are; see `Reader`."""
    # Of the configuration's class, whatever its file calls itself.
    return FAMILIES.get(type(model.config).model_type, Reader)(model, processor, layers)
