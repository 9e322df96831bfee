"""Arguments of public calls: of their kind and in their range, or one error that names them.

Each check gives the value back as plain Python has it: numpy's scalars become `int`, `float` and `bool`.
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_PLAIN = (str, bytes, int, float, complex, type(None))
_LONGEST = 60


def shown(value: Any) -> str:
    """A value as an error shows it: plain ones as they are, if they are short, others by their type."""
    if isinstance(value, _PLAIN) or _of_numpy(value, "generic"):
        try:
            text = repr(value)
        except ValueError:  # an integer of more digits than Python writes out
            text = ""
        if 0 < len(text) <= _LONGEST:
            return text
    return f"{'an' if type(value).__name__[0] in 'aeiouAEIOU' else 'a'} {type(value).__name__}"


def _of_numpy(value: Any, kind: str) -> bool:
    """Whether a value is of one of numpy's types; where nobody has imported numpy, none is."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and isinstance(value, getattr(numpy, kind))


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool) or _of_numpy(value, "bool_")


def whole_number(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """An integer from `least` to `most`; no bool, and no float that happens to be whole.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if _is_bool(value) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number, got {type(value).__name__}")
    number = int(value)
    _check_range(name, number, least, most)
    return number


def real_number(name: str, value: Any, least: float | None = None, most: float | None = None) -> float:
    """A finite number from `least` to `most`; integers are welcome.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if _is_bool(value) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, got {shown(value)}")
    _check_range(name, number, least, most)
    return number


def sampling(temperature: Any) -> dict[str, Any]:
    """Settings of decoding for a temperature as OpenAI's API has it: 0 takes the likeliest words, `None` tells nothing.

    Raises:
        TypeError, ValueError: if it is something else than a number of at least 0.
    """
    if temperature is None:
        return {}
    temperature = real_number("temperature", temperature, 0)
    return {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}


def _check_range(name: str, number: float, least: float | None, most: float | None) -> None:
    if least is not None and number < least:
        raise ValueError(f"{name} must be at least {least}, got {shown(number)}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be at most {most}, got {shown(number)}")


def yes_or_no(name: str, value: Any) -> bool:
    """`True` or `False`.

    Raises:
        TypeError: naming the argument.
    """
    if not _is_bool(value):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__}")
    return bool(value)


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of some words.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {', '.join(choices)}, got {type(value).__name__}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {shown(value)}")
    return value


def some_text(name: str, value: Any) -> str:
    """A string that can be encoded; it may be empty.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got {type(value).__name__}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{name} is no text: half a surrogate pair stands at character {error.start}; decode it as UTF-8 first"
        ) from None
    return value


def check_tensor(name: str, value: Any) -> torch.Tensor:
    """A tensor of finite floating-point numbers.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    import torch

    if not isinstance(value, torch.Tensor):
        raise TypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if not value.is_floating_point() or value.layout is not torch.strided or value.is_meta:
        kind = "meta" if value.is_meta else f"{str(value.layout).removeprefix('torch.')} {value.dtype}"
        raise TypeError(f"{name} must be a dense tensor of floating-point numbers, got a {kind} tensor")
    if not value.isfinite().all():
        raise ValueError(f"{name} must be finite, got NaN or infinity in it")
    return value
