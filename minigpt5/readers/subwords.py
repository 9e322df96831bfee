"""Prompts split in other ways than a tokenizer's own, to learn to read by."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tokenizers import models


@contextmanager
def dropped_merges(tokenizer: Any, rate: float) -> Iterator[None]:
    """Leave out each merge of a BPE tokenizer with a chance of `rate` (BPE-dropout, arXiv 1910.13267).

    Words fall into smaller pieces now and then, so that a model has to read them by any, as where one is
    mistyped. What is left out cannot be seeded.

    Raises:
        ValueError: for a tokenizer without merges, if `rate` is not 0.
    """
    if not rate:
        yield
        return
    model = getattr(getattr(tokenizer, "backend_tokenizer", None), "model", None)
    if not isinstance(model, models.BPE):
        kind = type(tokenizer if model is None else model).__name__
        raise ValueError(f"subword_dropout leaves out merges of a BPE tokenizer, and a {kind} has none: set it to 0")
    own, model.dropout = model.dropout, rate
    try:
        yield
    finally:
        model.dropout = own
