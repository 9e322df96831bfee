"""Vokens in a reader's vocabulary: `[IMG0]`, `[IMG1]` and so on."""

from __future__ import annotations

import json
from typing import Any, cast

import torch
from tokenizers import AddedToken
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast, ProcessorMixin

from minigpt5.readers.processor import MiniGPT5Processor


def voken_ids(tokenizer: Any) -> list[int]:
    """The ids of the vokens that a tokenizer of transformers has, in order."""
    vocabulary, ids = tokenizer.get_added_vocab(), []
    while f"[IMG{len(ids)}]" in vocabulary:
        ids.append(vocabulary[f"[IMG{len(ids)}]"])
    return ids


@torch.no_grad()
def add_vokens(
    model: PreTrainedModel,
    processor: ProcessorMixin | PreTrainedTokenizerBase,
    n_vokens: int,
    seed: int = 0,
) -> ProcessorMixin | PreTrainedTokenizerBase:
    """Give a model and its processor vokens, untrained; both are changed.

    Their rows in embedding table and head are drawn from a normal distribution with the mean and deviation of the
    words' rows, so that a first voken is as likely as a word.

    Returns:
        The processor to go on with: the same, but for BLIP-2, which has no prompt of its own, a `MiniGPT5Processor`.

    Raises:
        ValueError: for fewer than one voken, or if the tokenizer has some already.
    """
    if n_vokens < 1:
        raise ValueError(f"a picture needs at least one voken, got {n_vokens}")
    tokenizer: Any = getattr(processor, "tokenizer", processor)
    if voken_ids(tokenizer):
        raise ValueError(f"the tokenizer has {len(voken_ids(tokenizer))} vokens already")
    if getattr(model.config.get_text_config(decoder=True), "is_encoder_decoder", False):
        raise ValueError(f"{type(model).__name__} is an encoder-decoder; what reads must be a decoder-only model")
    words = len(tokenizer)
    if model.config.model_type == "blip-2":
        queries = model.config.num_query_tokens
        processor = MiniGPT5Processor(processor.image_processor, tokenizer, queries, n_vokens)
        model.config.image_token_id = model.config.image_token_index = processor.image_token_id
    else:
        tokenizer.add_tokens(_marks(0, n_vokens))
    _draw_rows(model, tokenizer, words, seed)
    return processor


def with_vokens(
    model: PreTrainedModel, processor: ProcessorMixin | PreTrainedTokenizerBase, n_vokens: int, seed: int = 0
) -> ProcessorMixin | PreTrainedTokenizerBase:
    """The processor to go on with, of a model that has vokens; one that has none is given some, see `add_vokens`."""
    there = voken_ids(getattr(processor, "tokenizer", processor))
    return processor if there else add_vokens(model, processor, n_vokens, seed)


@torch.no_grad()
def add_more_vokens(
    model: PreTrainedModel, processor: ProcessorMixin | PreTrainedTokenizerBase, n_vokens: int, seed: int = 0
) -> None:
    """Give a model that has vokens `n_vokens` of them, more than before, and all untrained; both are changed.

    Raises:
        ValueError: if other tokens stand behind those that it has.
    """
    tokenizer: Any = getattr(processor, "tokenizer", processor)
    there = voken_ids(tokenizer)
    if there[-1] != len(tokenizer) - 1:
        raise ValueError(
            f"behind the reader's {len(there)} vokens stand other tokens, so it can have no more; join it with "
            f"n_vokens={len(there)}"
        )
    tokenizer.add_tokens(_marks(len(there), n_vokens))
    _draw_rows(model, tokenizer, there[0], seed)


@torch.no_grad()
def replace_vokens(
    model: PreTrainedModel, processor: MiniGPT5Processor, n_vokens: int, seed: int = 0
) -> MiniGPT5Processor:
    """Give a model `n_vokens` untrained vokens in place of its own, as `add_vokens` draws them; changes `model`.

    Returns:
        Its new processor.

    Raises:
        ValueError: for fewer than one voken.
    """
    if n_vokens < 1:
        raise ValueError(f"a picture needs at least one voken, got {n_vokens}")
    words = processor.voken_ids[0]
    processor = MiniGPT5Processor(
        processor.image_processor,
        _without_added(processor.tokenizer, words),
        processor.num_query_tokens,
        n_vokens,
        processor.system,
        cast(str, processor.chat_template),
    )
    # The vokens stand behind all words: what is cut off are theirs and the picture mark's rows, nothing else.
    model.resize_token_embeddings(words, mean_resizing=False)
    _draw_rows(model, processor.tokenizer, words, seed)
    model.config.image_token_id = model.config.image_token_index = processor.image_token_id
    return processor


def _marks(start: int, stop: int) -> list[AddedToken]:
    return [AddedToken(f"[IMG{i}]", special=True, normalized=False) for i in range(start, stop)]


def _draw_rows(model: PreTrainedModel, tokenizer: Any, words: int, seed: int) -> None:
    """Rows for the tokens from the id `words` on, as the rows before them are distributed."""
    table: Any = model.get_input_embeddings()
    # Many tables have more rows than there are words.
    if len(tokenizer) > len(table.weight):
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    generator = torch.Generator().manual_seed(seed)
    layers: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    for weight in dict.fromkeys(layer.weight for layer in layers):
        known = weight[:words].float()
        noise = torch.randn(len(tokenizer) - words, weight.shape[1], generator=generator).to(weight.device)
        weight[words : len(tokenizer)] = (known.mean(0) + known.std(0) * noise).to(weight.dtype)


def _without_added(tokenizer: Any, first: int) -> PreTrainedTokenizerFast:
    """The tokenizer without the tokens that were added from the id `first` on."""
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    settings["added_tokens"] = [token for token in settings["added_tokens"] if token["id"] < first]
    return PreTrainedTokenizerFast(
        tokenizer_object=type(tokenizer.backend_tokenizer).from_str(json.dumps(settings)),
        pad_token=tokenizer.pad_token,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=False,
    )
