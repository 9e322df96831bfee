"""The whole chain of training programs, a few steps each, as a user would run it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from minigpt5 import MiniGPT5Pipeline
from minigpt5.storyworld.judge import WEIGHTS

ROOT = Path(__file__).parents[2]
# One step of each phase.
FEW = {
    "steps": 2,
    "caption_only_steps": 1,
    "captions_only_steps": 1,
    "text_only_steps": 1,
    "num_inference_steps": 2,
    "captions": 40,
}


@pytest.mark.slow
def test_chain_of_few_steps_makes_a_pipeline_that_runs(tmp_path):
    configs = tmp_path / "configs"
    configs.mkdir()
    for file in (ROOT / "configs/storyworld-mini").glob("*.yaml"):
        settings = yaml.safe_load(file.read_text())
        if file.stem == "data":
            settings = {name: {"train": 40, "validation": 500 if name == "cc3m" else 5} for name in settings}
        else:
            settings |= {name: FEW[name] for name in settings.keys() & FEW.keys()}
            settings |= {"judged": 2} if file.stem in ("align", "interleaved") else {}
        (configs / file.name).write_text(yaml.safe_dump(settings))
    # A judge of two steps could not read what the targets of the stories show.
    shutil.copytree(WEIGHTS, tmp_path / "out/judge/model")
    program = "training/miniature/make_miniature.py"
    command = [sys.executable, program, "--configs", str(configs), "--out", str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert first.returncode == 0, first.stderr[-3000:]

    pipe = MiniGPT5Pipeline.from_pretrained(tmp_path / "out/model")
    reply = pipe("Draw this: a red fox.", image_mode="always", max_new_tokens=4, num_inference_steps=2)
    assert reply.images[0][0].size == (128, 128)

    again = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert again.returncode == 0
    assert again.stdout.count("is there") == 11
