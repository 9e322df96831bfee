"""The command line. Each command stands in `minigpt5/commands/`.

Arguments and files are checked before torch is imported, so that help and errors come at once.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn, cast

from minigpt5.commands.arguments import Parser, as_program_error
from minigpt5.commands.feedback import add_compare, add_feedback
from minigpt5.commands.making import add_import, add_join
from minigpt5.commands.serving import add_serve, add_studio
from minigpt5.commands.telling import add_reply, add_story
from minigpt5.utils.checks import some_text
from minigpt5.utils.memory import keep_freed_memory
from minigpt5.utils.programs import ProgramError, one_line


def build_parser() -> Parser:
    """The parser of all commands."""
    parser = Parser(
        prog="minigpt5",
        description="MiniGPT-5 reads and makes interleaved text and pictures.",
        epilog='example: minigpt5 story "A red fox wakes up in the forest."',
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True, help="what to do; see minigpt5 COMMAND --help")
    for add in (add_story, add_reply, add_import, add_join, add_serve, add_studio, add_feedback, add_compare):
        add(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 for what the user can put right, 130 for Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        # What a terminal cannot show is no reason to fail.
        cast(Any, stream).reconfigure(errors="replace")
    try:
        argv = list(sys.argv[1:] if argv is None else argv)
        with as_program_error(ValueError):
            for number, argument in enumerate(argv, 1):
                some_text(f"argument {number}", argument)
        arguments = build_parser().parse_args(argv)
        arguments.run(arguments)
    except ProgramError as error:
        print(f"minigpt5: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def program() -> NoReturn:
    """`main` as a process, which ends with it.

    Python would take half a million objects of libraries apart first, which takes two seconds and more.
    """
    keep_freed_memory()
    code = main()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)
