"""A pipeline with another number of vokens, to start their training from (arXiv 2310.02239, figure 7)."""

from __future__ import annotations

import json

import torch
from transformers import PreTrainedTokenizerFast

from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.readers.processor import MiniGPT5Processor


def with_fresh_vokens(pipe: MiniGPT5Pipeline, n_vokens: int, seed: int = 0) -> MiniGPT5Pipeline:
    """Give a pipeline `n_vokens` untrained vokens in place of its own, however many it had; changes `pipe`.

    Their rows in embedding table and head are drawn from a normal distribution with mean and covariance of the words'
    rows, so that a first voken is as likely as a word.

    Raises:
        ValueError: for fewer than one voken.
    """
    if n_vokens < 1:
        raise ValueError(f"a picture needs at least one voken, got {n_vokens}")
    old, language_model = pipe.processor, pipe.comprehension.language_model
    first = old.voken_ids[0]
    processor = MiniGPT5Processor(
        old.image_processor, _without_added(old.tokenizer, first), old.num_query_tokens, n_vokens, old.system
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        # The vokens stand behind all words: what is cut off are theirs and the picture mark's rows, nothing else.
        language_model.resize_token_embeddings(first)
        language_model.resize_token_embeddings(len(processor.tokenizer))
    config = pipe.comprehension.config
    config.text_config.vocab_size = len(processor.tokenizer)
    config.image_token_id = config.image_token_index = processor.image_token_id
    pipe.register_modules(processor=processor)
    return pipe


def _without_added(tokenizer: PreTrainedTokenizerFast, first: int) -> PreTrainedTokenizerFast:
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
