import pytest
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from PIL import Image

from minigpt5 import MiniGPT5Pipeline
from minigpt5.evaluation.baselines import ZeroShotDiffusion

CONFIG = "configs/storyworld-mini/finetune_diffusion.yaml"
FEW = ("--steps", 2, "--batch_size", 4, "--judged", 1, "--painted", 3, "--num_inference_steps", 2)


@pytest.fixture
def arguments(small_world, tmp_path):
    return ("--config", CONFIG, "--data", small_world, "--out", tmp_path, *FEW, "--report_to", "null")


def test_a_tuned_unet_paints_for_the_baseline(run_program, arguments, tmp_path, capsys):
    mix = ("--mix", "{pair: 2, story_pair: 2}", "--gradient_checkpointing", "true", "--snr_gamma", 5)
    run_program("training/finetune_diffusion", *arguments, "--model", "storyworld-mini", *mix)
    assert "minus_loss" in capsys.readouterr().out
    assert Image.open(tmp_path / "samples/painted-00000002.png").size == (3 * 128, 128)

    pipe = MiniGPT5Pipeline.from_pretrained("storyworld-mini")
    unet = UNet2DConditionModel.from_pretrained(tmp_path / "model", subfolder="unet")
    theirs = pipe.unet.state_dict()
    assert any(not torch.equal(own, theirs[name]) for name, own in unet.state_dict().items())
    tuned = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    for name in ("vae", "text_encoder"):
        theirs = getattr(pipe, name).state_dict()
        assert all(torch.equal(own, theirs[key]) for key, own in getattr(tuned, name).state_dict().items())
    baseline = ZeroShotDiffusion(pipe, unet=unet)
    assert baseline("a red fox", num_inference_steps=2).images[0][0].size == (128, 128)


def test_it_starts_from_stable_diffusion_too(run_program, arguments, tmp_path):
    pipe = MiniGPT5Pipeline.from_pretrained("storyworld-mini")
    ZeroShotDiffusion(pipe).painter.save_pretrained(tmp_path / "sd")
    run_program("training/finetune_diffusion", *arguments, "--model", tmp_path / "sd", "--mix", "{pair: 4}")
    assert (tmp_path / "model/unet/config.json").exists()
