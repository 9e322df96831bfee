"""What the C library does with memory that is no longer used."""

import ctypes
import sys
from contextlib import suppress

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MOST_KEPT = 2**30
_LARGEST_KEPT = 2**26


def keep_freed_memory() -> None:
    """Have glibc keep up to a gigabyte of what tensors of up to 64 MB left for those to come.

    By itself it gives every large one back to the system and asks for it anew, page by page: on a CPU a painter loses
    up to a third of its time to that. What is larger it gives back still: among the weights of a model that is loaded,
    room for as much again would stay unused. All threads share one arena, for in one of its own nothing of 64 MB has
    room. Nothing is done without glibc.
    """
    if sys.platform != "linux":
        return
    with suppress(AttributeError):
        library = ctypes.CDLL(None)
        for what, value in ((_MMAP_THRESHOLD, _LARGEST_KEPT), (_TRIM_THRESHOLD, _MOST_KEPT), (_ARENA_MAX, 1)):
            library.mallopt(what, value)
