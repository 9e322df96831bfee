"""Models without memory for their weights."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import init_empty_weights
from torch.overrides import TorchFunctionMode


@contextmanager
def empty_weights() -> Iterator[None]:
    """Modules that are built in the block have their parameters on the meta device; their buffers have their values.

    accelerate alone takes the room of each parameter before it lets go of it. What the C library keeps of that adds up
    to as much as the model has, and a process larger than the machine's memory can start no other.
    """
    with init_empty_weights(include_buffers=False), _EmptyOnMeta():
        yield


class _EmptyOnMeta(TorchFunctionMode):
    """Tensors without values, as modules make their parameters of, take no room."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return func(*args, **(kwargs | {"device": "meta"} if func is torch.empty else kwargs))
