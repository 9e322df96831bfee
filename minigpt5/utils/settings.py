"""Settings: dataclasses whose fields say what they may be.

    @dataclass(kw_only=True)
    class PaintSettings(Settings):
        "How pictures are painted."

        num_inference_steps: int = setting(20, least=1, help="denoising steps")

Each range is declared once. It is checked however the settings come about: in Python, from a YAML file or from the
command line, whose `--help` tells it (`minigpt5.utils.programs`).
"""

from __future__ import annotations

import math
import operator
import os
import reprlib
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, asdict, field, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

Schema = TypeVar("Schema", bound="Settings")

# Types of weights, by torch's names.
DTYPES = ("float32", "bfloat16", "float16")
# The words of a YAML file that leave a setting out.
NULL = ("null", "~", "")
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_TOLD = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", Path: "a path in UTF-8"}
_WITHIN = {"at least": operator.ge, "above": operator.gt, "at most": operator.le, "below": operator.lt}
# No number of a program is larger, unless its setting says so; where one is, it is a slip.
_LARGEST = 10**9


def setting(
    default: Any = MISSING,
    *,
    factory: Any = MISSING,
    help: str = "",
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: Sequence[str] | Sequence[int] | None = None,
    positional: bool = False,
    **metadata: Any,
) -> Any:
    """A field of settings, and what it may be.

    Args:
        default, factory: the value where none is given, or what makes it; without either the setting is required.
        help: what it is, for `--help`.
        least, most, above, below: bounds of a number, or of every number of a mapping; the last two are left out.
        choices: the texts or numbers that are allowed.
        positional: whether it stands on the command line by its place, without a name.
        metadata: further entries of the field's metadata.
    """
    bounds = {"at least": least, "above": above, "at most": most, "below": below}
    bounds = {words: bound for words, bound in bounds.items() if bound is not None}
    metadata |= {"help": help, "bounds": bounds, "choices": tuple(choices or ()), "positional": positional}
    return field(default=default, default_factory=factory, metadata=metadata)


class Settings:
    """What settings inherit from: each field is converted to its type and held to its range.

    Raises:
        ValueError: if a value is of another type or out of its range; names the setting.
    """

    def __post_init__(self):
        hints = get_type_hints(type(self))
        for each in fields(self):  # type: ignore[arg-type]
            value = getattr(self, each.name)
            try:
                value = _convert(value, hints[each.name])
            except (TypeError, ValueError):
                raise ValueError(f"{each.name} is {_shown(value)}, expected {_expected(hints[each.name])}") from None
            _hold_to_range(each.name, value, each.metadata)
            setattr(self, each.name, value)


def kinds_of(annotation: Any) -> tuple:
    """The types that a value may have; that of `None` first, as the word null is also a text."""
    kinds = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return tuple(sorted(kinds, key=lambda kind: kind is not types.NoneType))


def nested_settings(annotation: Any) -> type[Settings] | None:
    """The settings that are the value of a field, if it has such."""
    return next((kind for kind in kinds_of(annotation) if isinstance(kind, type) and issubclass(kind, Settings)), None)


def default_of(one: Field) -> Any:
    """A field's value where none is given; `MISSING` if it is required."""
    return one.default if one.default_factory is MISSING else one.default_factory()


def range_text(bounds: Mapping[str, float]) -> str:
    """Bounds in words; empty without any."""
    if bounds.keys() == {"at least", "at most"}:
        return f"from {bounds['at least']} to {bounds['at most']}"
    return " and ".join(f"{words} {bound}" for words, bound in bounds.items())


def _expected(annotation: Any) -> str:
    told = []
    for kind in kinds_of(annotation):
        origin, inner = get_origin(kind) or kind, get_args(kind)
        if inner:
            whole = "a mapping of names to" if origin is dict else "a list of"
            told.append(f"{whole} {_TOLD[inner[-1 if origin is dict else 0]].removeprefix('a ')}s")
        else:
            told.append("null" if kind is types.NoneType else _TOLD.get(kind, kind.__name__))
    return " or ".join(reversed(told))


def _shown(value: Any) -> str:
    """A value in an error's line: however large or deep it is, a few words."""
    short = reprlib.Repr()
    short.maxlevel, short.maxdict = 2, 8
    return "empty" if value == "" else short.repr(value)[:120]


def _convert(value: Any, annotation: Any) -> Any:
    """A value, or the words that stand for one in a file, as one of the types that the annotation allows.

    Raises:
        TypeError, ValueError: if it is of none of them.
    """
    for kind in kinds_of(annotation):
        origin, inner = get_origin(kind) or kind, get_args(kind)
        if kind is types.NoneType:
            if _only_word(value) is None or _only_word(value) in NULL:
                return None
        elif origin is dict and isinstance(value := _structure(value), dict):
            return {_convert(name, inner[0]): _convert(each, inner[1]) for name, each in value.items()}
        elif origin is tuple and isinstance(value := _structure(value), (list, tuple)):
            return tuple(_convert(each, inner[0]) for each in value)
        elif origin is bool and isinstance(value, str):
            return _TRUTH[value.lower()] if value.lower() in _TRUTH else _refuse()
        elif origin is int and isinstance(value, str):
            return int(value)
        elif origin is float and isinstance(value, (int, str)) and not isinstance(value, bool):
            return float(value)
        elif origin is Path and isinstance(value, str) and value:
            value.encode()
            return Path(os.path.expanduser(value))
        elif isinstance(value, origin) and not (origin is int and isinstance(value, bool)):
            return value
    return _refuse()


def _refuse() -> NoReturn:
    raise TypeError


def _only_word(value: Any) -> Any:
    """The word of a list that has but one, as the command line gives `null` and `[q_proj, v_proj]` for lists."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _structure(value: Any) -> Any:
    """A value that the command line gave as a word, `{draw: 3}`, or as a list of one word, `[q_proj, v_proj]`."""
    word = _only_word(value)
    return read_yaml(word) if isinstance(word, str) and word.lstrip().startswith(("{", "[")) else value


def _hold_to_range(name: str, value: Any, metadata: Mapping[str, Any]) -> None:
    """Raises a `ValueError` for what is out of range; of a mapping or list each entry."""
    if isinstance(value, dict):
        for entry, each in value.items():
            _hold_to_range(f"{name}.{entry}", each, metadata)
    elif isinstance(value, tuple):
        for each in value:
            _hold_to_range(name, each, metadata)
    elif value is not None and metadata.get("choices"):
        if value not in metadata["choices"]:
            allowed = ", ".join(map(str, metadata["choices"]))
            raise ValueError(f"{name} is {_shown(value)}, must be one of {allowed}")
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} is {value}, must be a finite number")
        for words, bound in ({"at most": _LARGEST} | metadata.get("bounds", {})).items():
            if not _WITHIN[words](value, bound):
                raise ValueError(f"{name} is {_shown(value)}, must be {words} {bound}")


def build_settings(schema: type[Schema], values: Any, prefix: str = "") -> Schema:
    """Settings from nested plain values, in which numbers and truths may be words.

    Of settings within settings, what is not given is as in the outer ones' default.

    Raises:
        ValueError: if a value is unknown, missing, of another type or out of its range; names it.
    """
    try:
        values = _structure(values)
    except ValueError as error:
        raise ValueError(f"{prefix.rstrip('.')}: {error}") from None
    if not isinstance(values, dict):
        whole = prefix.rstrip(".") or "the settings"
        raise ValueError(f"{whole}: {_shown(values)} is not a mapping of names to values")
    hints = get_type_hints(schema)
    known = {each.name: each for each in fields(schema)}  # type: ignore[arg-type]
    unknown = sorted(str(name) for name in values.keys() - known.keys())
    if unknown:
        raise ValueError(f"unknown setting {prefix}{unknown[0][:80]}; there are {', '.join(known)}")
    built = {}
    for name, each in known.items():
        default = default_of(each)
        if name not in values:
            if default is MISSING:
                raise ValueError(f"{prefix}{name} is not set")
            continue
        value, inner = values[name], nested_settings(hints[name])
        if inner and not isinstance(value, inner) and value is not None and value not in NULL:
            if isinstance(default, inner) and isinstance(value, dict):
                value = plain(default) | value
            value = build_settings(inner, value, f"{prefix}{name}.")
        built[name] = value
    try:
        return schema(**built)
    except ValueError as error:
        raise ValueError(f"{prefix}{error}") from None


def plain(settings: Any) -> Any:
    """Settings as values that JSON and YAML can hold."""
    if is_dataclass(settings) and not isinstance(settings, type):
        settings = asdict(settings)
    if isinstance(settings, dict):
        return {name: plain(inner) for name, inner in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [plain(inner) for inner in settings]
    return str(settings) if isinstance(settings, Path) else settings


@cache
def _loader() -> type:
    """YAML whose words stay words: a setting's type says whether `no`, `1e-4` or `2024-01-01` is more than one."""
    import yaml

    class Loader(yaml.SafeLoader):
        yaml_implicit_resolvers: ClassVar = {
            first: [(tag, pattern) for tag, pattern in resolvers if tag == "tag:yaml.org,2002:merge"]
            for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_mapping_node(self, anchor: Any) -> Any:
            node = super().compose_mapping_node(anchor)
            names = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in names:
                    raise yaml.MarkedYAMLError(problem=f"it says {key.value} twice", problem_mark=key.start_mark)
                names.add(key.value)
            return node

    return Loader


def read_yaml(text: str) -> Any:
    """Mappings, lists and words of a YAML text.

    Raises:
        ValueError: if it is none.
    """
    import yaml

    try:
        return yaml.load(text, _loader())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except yaml.YAMLError as error:
        told = getattr(error, "problem", None) or str(error)
        line = getattr(error, "problem_mark", None)
        raise ValueError(f"not YAML{f' in line {line.line + 1}' if line else ''}: {' '.join(told.split())}") from None
    except (AttributeError, TypeError) as error:
        # What PyYAML's constructors make of a tag that does not fit its value.
        raise ValueError(f"not YAML that settings can hold: {error}") from None
