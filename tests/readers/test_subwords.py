"""Prompts split in other ways."""

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from minigpt5.readers.subwords import dropped_merges


def test_merges_come_back_where_something_fails(tiny_processor):
    tokenizer = tiny_processor.tokenizer
    whole = tokenizer.tokenize("A red fox")
    with pytest.raises(KeyError), dropped_merges(tokenizer, 1.0):
        assert len(tokenizer.tokenize("A red fox")) > len(whole)
        raise KeyError
    assert tokenizer.tokenize("A red fox") == whole


def test_a_tokenizer_without_merges_is_refused_unless_none_is_to_go():
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel({"a": 0}, "a")))
    with dropped_merges(tokenizer, 0.0):
        assert tokenizer.tokenize("a") == ["a"]
    with pytest.raises(ValueError, match="a WordLevel has none"), dropped_merges(tokenizer, 0.1):
        pass
