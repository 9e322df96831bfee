"""A small StoryWorld to train on."""

from __future__ import annotations

from pathlib import Path

import pytest

from minigpt5.storyworld.export import export_cc3m, export_vist


@pytest.fixture(scope="session")
def small_world(tmp_path_factory) -> Path:
    """Twelve pictures with captions and four stories, and half as many held back."""
    root = tmp_path_factory.mktemp("world")
    for split, share in (("train", 2), ("validation", 1)):
        export_cc3m(root / "cc3m", split, 6 * share)
        export_vist(root / "vist", split, 2 * share)
    return root
