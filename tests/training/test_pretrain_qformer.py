import pytest
import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.scene import Character, Scene

CONFIG = "configs/storyworld-mini/qformer.yaml"
FEW = ("--steps", 3, "--batch_size", 4, "--mix", "{pair: 4}", "--judged", 6, "--report_to", "null", "--warmup_steps", 0)


@pytest.fixture
def arguments(small_world, tmp_path):
    return ("--config", CONFIG, "--data", small_world, "--model", "storyworld-mini", "--out", tmp_path, *FEW)


def test_the_pipeline_gets_a_new_qformer_and_keeps_all_else(run_program, arguments, tmp_path, capsys):
    run_program("training/pretrain_qformer", *arguments)
    said = capsys.readouterr().out
    assert "contrast" in said and "matching" in said and "generation" in said and "text_found" in said

    old, new = MiniGPT5Pipeline.from_pretrained("storyworld-mini"), MiniGPT5Pipeline.from_pretrained(tmp_path / "model")
    theirs = dict(old.comprehension.named_parameters())
    changed = {name for name, own in new.comprehension.named_parameters() if not torch.equal(own, theirs[name])}
    # A few steps at a low rate move the norm behind the ViT too.
    norm = {"vision_model.post_layernorm.weight", "vision_model.post_layernorm.bias"}
    assert {name.split(".")[0] for name in changed - norm} == {"query_tokens", "qformer"}
    assert norm <= changed
    fox = draw(Scene(Character("fox", "red"), "left", "beach", "night"))
    assert new("What do you see? <ImageHere>", images=fox, max_new_tokens=3, image_mode="never").images == [[]]


def test_a_stopped_run_goes_on(run_program, arguments, tmp_path, capsys):
    run_program("training/pretrain_qformer", *arguments, "--steps", 2)
    run_program("training/pretrain_qformer", *arguments, "--steps", 3)
    assert "resumed at step 2 of 3" in capsys.readouterr().out


def test_dry_run_writes_nothing(run_program, arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        run_program("training/pretrain_qformer", *arguments, "--dry_run", "true")
    assert end.value.code == 0 and not list(tmp_path.iterdir())
    assert "gradients + optimizer state" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("setting", "value", "told"),
    [("mix", "{draw: 4}", "'draw' is no task here; there are pair, story_pair"), ("mix", "{pair: 5}", "adds up to 5")],
)
def test_settings_that_cannot_be_are_refused(run_program, arguments, capsys, setting, value, told):
    with pytest.raises(SystemExit) as end:
        run_program("training/pretrain_qformer", *arguments, f"--{setting}", value)
    assert end.value.code == 2 and told in capsys.readouterr().err
