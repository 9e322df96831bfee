"""Programs run as a user runs them, on a small StoryWorld, within this process: libraries take longest to import."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from minigpt5.storyworld.export import export_cc3m, export_vist

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def small_world(tmp_path_factory) -> Path:
    """Twelve pictures with captions and four stories, and half as many held back."""
    root = tmp_path_factory.mktemp("world")
    for split, share in (("train", 2), ("validation", 1)):
        export_cc3m(root / "cc3m", split, 6 * share)
        export_vist(root / "vist", split, 2 * share)
    return root


@pytest.fixture
def run_program(monkeypatch):
    """`run_program("align_vokens", "--steps", 3)` runs `training/align_vokens.py`."""

    def run(name: str, *arguments: object) -> None:
        program = str(ROOT / f"{name if '/' in name else f'training/{name}'}.py")
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        runpy.run_path(program, run_name="__main__")

    return run
