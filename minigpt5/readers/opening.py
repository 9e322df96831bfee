"""Models that read, and their processors, from folders and hub repositories of transformers."""

from __future__ import annotations

import os

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from minigpt5.utils.integrity import load_whole

Processor = ProcessorMixin | PreTrainedTokenizerBase


def open_model(source: str | os.PathLike, dtype: torch.dtype = torch.float32) -> tuple[PreTrainedModel, Processor]:
    """A vision-language or causal language model in evaluation mode, and its processor or tokenizer.

    Raises:
        ValueError: if the model there is neither, or has no tokenizer.
        OSError: if there is none.
    """
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    kinds = (
        (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoModelForImageTextToText, AutoProcessor),
        (MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, AutoTokenizer),
    )
    for mapping, model_class, processor_class in kinds:
        if type(config) in mapping:
            try:
                processor = processor_class.from_pretrained(source, trust_remote_code=False)
            except (OSError, ValueError) as error:
                raise ValueError(f"{source} has no processor or tokenizer that opens ({error})") from error
            # What a checkpoint holds for other heads than the one here is of no use, and no fault.
            model = load_whole(model_class, source, surplus=True, dtype=dtype)
            return model.eval(), processor
    raise ValueError(
        f"{source} is a {config.model_type}, which is neither a vision-language nor a causal language model"
    )
