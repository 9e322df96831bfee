"""Settings of a program: a YAML file, with values from the command line put over it."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from minigpt5.fit import FitConfig


def stage_arguments(description: str) -> argparse.ArgumentParser:
    """The arguments every training program has: its settings, its data and its output folder."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--config", type=Path, required=True, help="YAML file with this stage's settings")
    parser.add_argument("--data", type=Path, required=True, help="folder of the exported data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder for checkpoints and the result")
    parser.add_argument("--steps", type=int, help="optimizer steps, in place of the file's")
    return parser


def read_settings(arguments: argparse.Namespace) -> tuple[FitConfig, dict[str, Any]]:
    """The loop's settings and what else the file sets for this stage.

    Raises:
        ValueError: if the file lacks one of the loop's required settings.
    """
    settings = yaml.safe_load(arguments.config.read_text())
    if arguments.steps:
        settings["steps"] = arguments.steps
    names = {field.name for field in fields(FitConfig)}
    try:
        loop = FitConfig(**{name: settings.pop(name) for name in names & settings.keys()})
    except TypeError as error:
        raise ValueError(f"{arguments.config}: {error}") from None
    return loop, settings
