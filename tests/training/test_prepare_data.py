"""The program that checks a download, as a user runs it."""

import json
import os
import subprocess
import sys
from pathlib import Path

from minigpt5.data.readers import open_dataset
from minigpt5.storyworld.export import export_vist

ROOT = Path(__file__).parents[2]


def run(*arguments):
    command = [sys.executable, "training/prepare_data.py", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_an_export_with_spoilt_pictures_is_indexed(tmp_path):
    source, out = tmp_path / "vist", tmp_path / "index"
    export_vist(source, "train", 6, 16)
    gone, short, page = (source / f"train_images/{int(name):09d}.png" for name in ("00", "12", "34"))
    gone.unlink()
    short.write_bytes(short.read_bytes()[:-40])
    page.write_text("<html>404 not found</html>")

    first = run("vist", source, out, "--workers", 1)
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[1].split() == ["train", "6", "3", "0", "3", "30", "27", "1", "2"]
    assert json.loads((out / "report.json").read_text())["splits"]["train"]["pictures"]["good"] == 27
    assert len(open_dataset("vist", out, "train")) == 3
    assert run("vist", source, out, "--workers", 1).stdout == first.stdout


def test_errors_are_a_line(tmp_path):
    failed = run("mmdialog", tmp_path, tmp_path / "index")
    assert failed.returncode == 2
    assert failed.stderr.startswith("prepare_data.py: error: ") and "no mmdialog download" in failed.stderr
    assert failed.stderr.count("\n") == 1

    source = tmp_path / "vist"
    export_vist(source, "train", 2, 16)
    for picture in source.rglob("*.png"):
        picture.unlink()
    nothing = run("vist", source, tmp_path / "index")
    assert nothing.returncode == 2 and "10" in nothing.stdout
    assert "no row of" in nothing.stderr
