"""How every program starts and ends: settings in, and one line for whatever its user can put right.

    if __name__ == "__main__":
        run_program(main, PaintSettings, __doc__)

Settings come from the YAML file that `--config` names and from the command line, which wins. Every field is an option,
`--num_inference_steps 30`; the fields of settings within settings have dotted names, `--weights.text 0.01`.
"""

from __future__ import annotations

import argparse
import os
import sys
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

from minigpt5.utils.settings import (
    Schema,
    Settings,
    build_settings,
    default_of,
    kinds_of,
    nested_settings,
    plain,
    range_text,
    read_yaml,
)

_METAVARS = {bool: "true|false", int: "INT", float: "FLOAT", str: "TEXT", Path: "PATH"}


class ProgramError(Exception):
    """What the user of a program can put right; the message says how."""


def run_program(
    main: Callable[[Any], None],
    schema: type[Settings] | Mapping[str, type[Settings]],
    description: str | None,
    many_processes: bool = False,
) -> None:
    """Read a program's settings and run it; what is drawn in it is drawn from its setting `seed`.

    A bad setting, a file or folder that is missing or broken, a full disk: each is one line and exit code 2.

    Args:
        main: takes the settings.
        schema: of the settings, or of those of each command by its name.
        many_processes: whether it shares its work among the processes of `accelerate launch` or `torchrun`. Otherwise
            it runs in one alone.
    """
    settings = read_config(schema, description)
    try:
        if not many_processes and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ProgramError("this program runs in one process: start it with python, without a launcher")
        _prepare(settings)
        main(settings)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except Exception as error:
        if not is_told(error):
            raise
        print(f"{Path(sys.argv[0]).name}: error: {one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from error


def _prepare(settings: Settings) -> None:
    # Imported here, so that bad settings and --help are answered at once.
    from accelerate.utils import set_seed

    from minigpt5.utils.logs import quiet_libraries
    from minigpt5.utils.memory import keep_freed_memory

    keep_freed_memory()
    quiet_libraries()
    seed = getattr(settings, "seed", None)
    if seed is not None:
        set_seed(seed)


def is_told(error: Exception) -> bool:
    """Whether the error's message is meant for the user: the system's, or raised by this library or its programs."""
    if isinstance(error, (OSError, ProgramError, ImportError)):
        return True
    return isinstance(error, ValueError) and _raised_here(error.__traceback__)


def _raised_here(trace: types.TracebackType | None) -> bool:
    module = ""
    while trace is not None:
        module, trace = trace.tb_frame.f_globals.get("__name__", ""), trace.tb_next
    return module.partition(".")[0] in ("minigpt5", "__main__")


def one_line(error: BaseException) -> str:
    """What an error says, in a line."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def opening(name: object) -> Iterator[None]:
    """Say of whatever goes wrong in the block that `name` cannot be opened: each library has errors of its own.

    Raises:
        ProgramError: naming it.
    """
    try:
        yield
    except Exception as error:
        raise ProgramError(f"cannot open {name}: {one_line(error)}") from error


def read_config(
    schema: type[Schema] | Mapping[str, type[Schema]], description: str | None, argv: Sequence[str] | None = None
) -> Schema:
    """The settings of a program from its command line and the YAML file that `--config` names.

    Bad settings end the program with one line and exit code 2.

    Args:
        schema: of the settings, or of those of each command by its name.
    """
    look: dict[str, Any] = {"formatter_class": argparse.RawDescriptionHelpFormatter, "allow_abbrev": False}
    parser = _Parser(description=description, **look)
    if isinstance(schema, Mapping):
        commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
        for name, own in schema.items():
            told = (own.__doc__ or "").split("\n")[0]
            _add_options(commands.add_parser(name, help=told, description=told, **look), own)
    else:
        _add_options(parser, schema)
    arguments = vars(parser.parse_args([_underscored(word) for word in (sys.argv[1:] if argv is None else argv)]))
    chosen = schema[arguments.pop("command")] if isinstance(schema, Mapping) else schema
    file = arguments.pop("config")
    given = {name: words for name, words in arguments.items() if words is not MISSING}
    try:
        values = (read_yaml(file.read_text(encoding="utf-8")) or {}) if file else {}
        for name, words in given.items():
            _put(values, name, words)
        return build_settings(chosen, values)
    except (OSError, ValueError) as error:
        of_file = file and not isinstance(error, OSError) and not str(error).startswith(tuple(given))
        parser.error(f"{file}: {error}" if of_file else str(error))


class _Parser(argparse.ArgumentParser):
    """Errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def _underscored(word: str) -> str:
    """`--batch-size` means `--batch_size`."""
    name, given, value = word.partition("=")
    return f"--{name[2:].replace('-', '_')}{given}{value}" if word.startswith("--") else word


def _put(values: Any, name: str, words: str | list[str]) -> None:
    """Put what the command line says of a setting into the values of the file; other kinds are refused later."""
    *outer, last = name.split(".")
    for step in outer:
        if isinstance(values, dict):
            values[step] = dict(values[step]) if isinstance(values.get(step), dict) else {}
            values = values[step]
    if isinstance(values, dict):
        values[last] = words


@dataclass(frozen=True)
class _Option:
    """A setting on the command line."""

    name: str
    kinds: tuple
    default: Any
    metadata: Mapping[str, Any]

    @property
    def several(self) -> bool:
        return any(get_origin(kind) is tuple for kind in self.kinds)

    @property
    def metavar(self) -> str:
        words = []
        for kind in self.kinds:
            origin, inner = get_origin(kind) or kind, get_args(kind)
            if origin is dict:
                words.append(f"{{NAME: {_METAVARS[inner[1]]}, …}}")
            elif kind is not types.NoneType:
                words.append(_METAVARS[inner[0] if origin is tuple else origin])
        if self.metadata.get("choices"):
            words = [f"{{{','.join(map(str, self.metadata['choices']))}}}"]
        return "|".join([*words, "null"] if types.NoneType in self.kinds else words)

    @property
    def help(self) -> str:
        text = "; ".join(filter(None, (self.metadata.get("help"), range_text(self.metadata.get("bounds", {})))))
        default = "required" if self.default is MISSING else f"default: {_word(self.default)}"
        return f"{text} ({default})".strip().replace("%", "%%")


def _word(value: Any) -> str:
    """A value as it is written on the command line."""
    if isinstance(value, (str, Path)):
        return str(value)
    import yaml

    return yaml.safe_dump(plain(value), default_flow_style=True, width=1000).split("\n")[0]


def _options(
    schema: type[Settings], defaults: Settings | None = None, prefix: str = ""
) -> Iterator[tuple[str, list[_Option]]]:
    """The options of a schema by group: its own, those of each class that it inherits from, those of settings within.

    Args:
        defaults: what the schema's own defaults give way to.
    """
    hints = get_type_hints(schema)
    for owner in schema.__mro__:
        own, within = [], []
        for each in fields(schema) if is_dataclass(owner) else ():  # type: ignore[arg-type]
            home = next(cls for cls in reversed(schema.__mro__) if each.name in getattr(cls, "__annotations__", {}))
            if home is not owner:
                continue
            name, kinds = f"{prefix}{each.name}", kinds_of(hints[each.name])
            default = getattr(defaults, each.name) if defaults else default_of(each)
            inner = nested_settings(hints[each.name])
            if inner:
                within += _options(inner, default if isinstance(default, inner) else None, f"{name}.")
                kinds = tuple(kind for kind in kinds if kind is types.NoneType)
            if kinds:
                own.append(_Option(name, kinds, default, each.metadata))
        if own:
            yield (owner.__doc__ or owner.__name__).split("\n")[0].rstrip("."), own
        yield from within


def _add_options(parser: argparse.ArgumentParser, schema: type[Settings]) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="YAML file with settings by the names below")
    places = []
    for title, options in _options(schema):
        group = parser.add_argument_group(title)
        for option in options:
            nargs = "+" if option.several else None
            more = dict[str, Any](default=MISSING, help=option.help, metavar=option.metavar, nargs=nargs)
            if option.metadata.get("positional"):
                more["metavar"] = option.metavar if option.metadata["choices"] else option.name.upper()
                places.append(more["metavar"] + (" ..." if option.several else ""))
                parser.add_argument(option.name, **more)
            elif bool in option.kinds:
                more |= {"nargs": "?", "const": "true"}
                group.add_argument(f"--{option.name}", **more)
            else:
                group.add_argument(f"--{option.name}", **more)
    parser.usage = " ".join(["%(prog)s", *places, "[--config FILE] [--SETTING VALUE ...]"])
