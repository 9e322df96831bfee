"""What the C library does with memory that is no longer used."""

import ctypes
import sys
from contextlib import suppress

# Of glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_MOST = 2**30


def keep_freed_memory() -> None:
    """Have glibc keep up to a gigabyte of what tensors left for those to come; nothing is done without glibc.

    By itself it gives every large one back to the system and asks for it anew, page by page: on a CPU a painter loses
    up to a third of its time to that. All threads share one arena, for in one of its own nothing of 64 MB has room.
    """
    if sys.platform != "linux":
        return
    with suppress(AttributeError):
        library = ctypes.CDLL(None)
        for what, value in ((_MMAP_THRESHOLD, _MOST), (_TRIM_THRESHOLD, _MOST), (_ARENA_MAX, 1)):
            library.mallopt(what, value)
