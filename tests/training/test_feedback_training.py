"""What people think of replies is trained with, beside a share of the old data."""

import json
import shutil

import pytest
from PIL import Image

from minigpt5 import MiniGPT5Pipeline
from minigpt5.data.mixture import Mixture
from minigpt5.service.export import export_feedback
from minigpt5.service.feedback import Feedback, FeedbackStore


@pytest.fixture
def data(small_world, pictures, tmp_path):
    """Old data, and beside them twenty corrections: of what is read, and of what is painted."""
    shutil.copytree(small_world, tmp_path / "data")
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    for number in range(20):
        picture = {"type": "image", "image": pictures[number % 4]}
        question = [{"role": "user", "content": [picture, {"type": "text", "text": f"Draw this: a fox. {number}"}]}]
        correction = ["It is night."] if number % 2 else ["A fox.", pictures[0]]
        store.put(Feedback(f"{number:02}", {}, question, {}, 0, ["Hm."], "down", correction))
    export_feedback(store.path, tmp_path / "data/chat")
    return tmp_path / "data"


def test_an_export_is_a_task_of_the_mixture_beside_old_data(data):
    drawn = Mixture(data, {"chat": 2, "story": 1})
    replies = [one.item[-1]["content"] for index in range(9) for one in drawn(index)[:2]]
    told = {tuple(part["text"] for part in reply) for reply in replies}
    assert told == {("It is night.",), ("A fox.", None)}
    assert all(reply[1]["image"].size == (64, 64) for reply in replies if len(reply) == 2)


def test_the_second_stage_learns_from_corrections_and_old_data(run_program, data, tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("minigpt5.training.stages.sample_grid", lambda pipe, prompts: Image.new("RGB", (8, 8)))
    config = ("--config", "configs/storyworld-mini/feedback.yaml", "--data", data, "--model", tiny_folder)
    few = ("--steps", 2, "--batch_size", 3, "--mix", "{chat: 2, story: 1}")
    run_program("training/train_interleaved", *config, *few, "--out", tmp_path / "out")
    assert json.loads((tmp_path / "out/adapter/adapter.json").read_text())["lora"] is True
    assert MiniGPT5Pipeline.from_pretrained(tmp_path / "out/model").reader.n_vokens == 8
