import json

import pytest

from minigpt5 import MiniGPT5Pipeline

CONFIG = "configs/storyworld-mini/instructions.yaml"
FEW = ("--steps", 2, "--batch_size", 4, "--judged", 1, "--told", 2, "--report_to", "null")


@pytest.fixture
def arguments(small_world, tmp_path):
    return ("--config", CONFIG, "--data", small_world, "--model", "storyworld-mini", "--out", tmp_path / "out", *FEW)


@pytest.mark.parametrize("mix", ["{instruct: 4}", "{caption: 2, instruct: 2}"])
def test_descriptions_are_asked_for_and_told(run_program, arguments, tmp_path, capsys, mix):
    run_program("training/tune_instructions", *arguments, "--mix", mix)
    said = capsys.readouterr().out
    assert said.count("told '") == 2 and "minus_loss" in said
    assert MiniGPT5Pipeline.from_pretrained(tmp_path / "out/model").processor.n_vokens == 8


def test_chats_of_ones_own_also_without_pictures(run_program, arguments, small_world, tmp_path):
    (tmp_path / "chat").mkdir()
    picture = str(next((small_world / "cc3m/train").glob("*.png")))
    seen = [{"type": "image", "image": picture}, {"type": "text", "text": "Who is it?"}]
    bare = {"messages": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"}]}
    shown = {"messages": [{"role": "user", "content": seen}, {"role": "assistant", "content": "A friend."}]}
    # One row a batch, so that one of the two has no picture at all.
    (tmp_path / "chat/train.jsonl").write_text(f"{json.dumps(bare)}\n{json.dumps(shown)}\n")
    (tmp_path / "chat/validation.jsonl").write_text(json.dumps(shown) + "\n")
    single = ("--batch_size", 1, "--mix", "{chat: 1}", "--data", tmp_path)
    run_program("training/tune_instructions", *arguments, *single)
    assert (tmp_path / "out/model/model_index.json").exists()
