"""Settings of a program: a dataclass, filled from a YAML file and from the command line, which wins.

Every field is an option, `--learning_rate 1e-4`; the fields of a dataclass within it have dotted names,
`--weights.text 0.01`. The "Args" of the dataclass's docstring are the help.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

Settings = TypeVar("Settings")


def _kinds(annotation: Any) -> tuple:
    """The types that a value may have."""
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)


def _nested(annotation: Any) -> type | None:
    return next((kind for kind in _kinds(annotation) if is_dataclass(kind)), None)


def _help(schema: type) -> dict[str, str]:
    """What the docstrings of a dataclass and of those it inherits from say of each field."""
    told = {}
    for base in reversed(schema.__mro__):
        arguments = (base.__doc__ or "").partition("Args:")[2].partition("\n\n")[0]
        for names, text in re.findall(r"^ {4,8}(\w[\w, ]*): ((?:.|\n(?! {4,8}\w[\w, ]*: ))*)", arguments, re.MULTILINE):
            told |= dict.fromkeys(re.split(r", ", names), " ".join(text.split()).replace("%", "%%"))
    return told


def _options(schema: type, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, type and help of each option."""
    hints, told = get_type_hints(schema), _help(schema)
    for field in fields(schema):
        inner = _nested(hints[field.name])
        if inner:
            if types.NoneType in _kinds(hints[field.name]):
                yield f"{prefix}{field.name}", "null", f"null leaves it out: {told.get(field.name, '')}".strip(": ")
            yield from _options(inner, f"{prefix}{field.name}.")
            continue
        missing = field.default is MISSING and field.default_factory is MISSING
        default = field.default if field.default is not MISSING else None if missing else field.default_factory()
        default = "required" if missing else yaml.safe_dump(default, default_flow_style=True).split("\n")[0]
        kind = " or ".join(getattr(kind, "__name__", str(kind)) for kind in _kinds(hints[field.name]))
        text = told.get(field.name, "").rstrip(".")
        yield f"{prefix}{field.name}", kind.replace("NoneType", "null"), f"{text} ({default})".strip()


def _convert(value: Any, annotation: Any) -> Any:
    """A YAML value as one of the types that the annotation allows; YAML reads 1e-4 as a word."""
    for kind in _kinds(annotation):
        origin = get_origin(kind) or kind
        if origin is Literal and value in get_args(kind):
            return value
        if (origin is Any) or (origin is type(None) and value is None):
            return value
        if isinstance(origin, type) and type(value) is origin:
            return value
        if origin is Path and isinstance(value, str):
            return Path(value)
        if origin is float and isinstance(value, (int, str)) and not isinstance(value, bool):
            try:
                return float(value)
            except ValueError:
                continue
        if origin is tuple and isinstance(value, list):
            return tuple(value)
    raise TypeError(value)


def build_settings(schema: type[Settings], values: dict[str, Any], prefix: str = "") -> Settings:
    """A dataclass from nested plain values.

    Raises:
        ValueError: if a value is unknown, missing or of another type; names it.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{prefix.rstrip('.') or 'the settings'}: {values!r} is not a mapping of names to values")
    hints = get_type_hints(schema)
    known = {field.name: field for field in fields(schema)}
    unknown = sorted(values.keys() - known.keys())
    if unknown:
        raise ValueError(f"unknown setting {prefix}{unknown[0]}; there are {', '.join(known)}")
    built = {}
    for name, field in known.items():
        if name not in values:
            if field.default is MISSING and field.default_factory is MISSING:
                raise ValueError(f"{prefix}{name} is not set")
            continue
        value, inner = values[name], _nested(hints[name])
        if inner and value is not None:
            built[name] = build_settings(inner, value, f"{prefix}{name}.")
            continue
        try:
            built[name] = _convert(value, hints[name])
        except TypeError:
            kind = " or ".join(getattr(kind, "__name__", str(kind)) for kind in _kinds(hints[name]))
            raise ValueError(f"{prefix}{name} is {value!r}, expected {kind}") from None
    return schema(**built)


def read_config(schema: type[Settings], description: str, argv: Sequence[str] | None = None) -> Settings:
    """The settings of a program from its command line and the YAML file that `--config` names.

    Bad settings end the program with one line and exit code 2.
    """
    parser = argparse.ArgumentParser(
        usage="%(prog)s [--config FILE] [--SETTING VALUE ...]",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings by the names below")
    for name, kind, text in _options(schema):
        parser.add_argument(f"--{name}", metavar=kind.upper(), default=MISSING, help=text)
    # `--batch-size` means `--batch_size`.
    words = [
        f"--{name.replace('-', '_')}{given}{value}" if dashes else word
        for word in (sys.argv[1:] if argv is None else argv)
        for dashes, name, given, value in [re.match(r"(--)?([^=]*)(=?)((?:.|\n)*)", word).groups()]
    ]
    arguments = vars(parser.parse_args(words))
    file = arguments.pop("config")
    try:
        values = (yaml.safe_load(file.read_text(encoding="utf-8")) or {}) if file else {}
        for name, text in arguments.items():
            if text is MISSING:
                continue
            *outer, last = name.split(".")
            inner = values
            for step in outer:
                inner[step] = dict(inner.get(step) or {})
                inner = inner[step]
            inner[last] = yaml.safe_load(text)
        return build_settings(schema, values)
    except (OSError, ValueError, yaml.YAMLError) as error:
        parser.error(f"{file}: {error}" if file and not isinstance(error, OSError) else str(error))


def plain(settings: Any) -> dict[str, Any]:
    """A settings dataclass as values that JSON and YAML can hold."""

    def simple(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: simple(inner) for name, inner in value.items()}
        if isinstance(value, (list, tuple)):
            return [simple(inner) for inner in value]
        return str(value) if isinstance(value, Path) else value

    return simple(asdict(settings) if dataclasses.is_dataclass(settings) else settings)
