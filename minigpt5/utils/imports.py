"""Imports of torch, diffusers and transformers: half a million objects, of which none is garbage."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused() -> Iterator[None]:
    """Look for no garbage in the block: imports make none, and looking takes a tenth of their time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def program_imports() -> Iterator[None]:
    """`collector_paused` for what a program imports for good: nor is garbage looked for among it at the program's end.

    Where torch is imported already, what there is belongs to others and is left to the collector.
    """
    first = "torch" not in sys.modules
    with collector_paused():
        yield
    if first:
        gc.freeze()
