"""The command line: `minigpt5 story` tells a story in pictures, `minigpt5 reply` answers one prompt.

Whatever can be checked is checked before torch is imported, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from PIL import Image
from tqdm.auto import tqdm

from minigpt5.html import reply_html
from minigpt5.hub import shipped_model, shipped_models
from minigpt5.story import RECORD, check_folder, replace_folder, tell_story, to_json, unknown_prompt_warning, write_story

if TYPE_CHECKING:
    from minigpt5.pipeline import MiniGPT5Pipeline

MINIATURE = "storyworld-mini"
REPLY_RECORD = "reply.json"


class UsageError(Exception):
    """What the user can put right; the message is the one line that is shown."""


class Parser(argparse.ArgumentParser):
    """Leaves the wording of errors to `main`."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message)


def build_parser() -> Parser:
    parser = Parser(prog="minigpt5", description="MiniGPT-5 reads and makes interleaved text and pictures.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for run, summary, example in (
        (story, "tell a story in pictures", 'minigpt5 story "A red fox wakes up in the forest." --steps 5 --out story/'),
        (reply, "answer one prompt", 'minigpt5 reply "What do you see?" --image fox.png'),
    ):
        command = commands.add_parser(
            run.__name__,
            help=summary,
            description=run.__doc__,
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        command.add_argument("prompt", metavar="OPENING" if run is story else "PROMPT", help=_PROMPT_HELP[run.__name__])
    
    return parser
