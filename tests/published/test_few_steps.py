"""Painters of few steps in the published model: SD-Turbo by the import, LCM-LoRA by what diffusers has for it."""

import pytest
import torch
from diffusers import EulerDiscreteScheduler, LCMScheduler, StableDiffusionPipeline
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from recordings import of_stage, sources

from minigpt5 import MiniGPT5Pipeline
from minigpt5.cli import main

FILES = sources(of_stage(2))
# As in scheduler_config.json of stabilityai/sd-turbo.
TURBO = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "interpolation_type": "linear",
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "trailing",
    "timestep_type": "discrete",
}


def stable_diffusion():
    return StableDiffusionPipeline.from_pretrained(FILES["sd"], safety_checker=None, requires_safety_checker=False)


@pytest.fixture
def seen():
    """`seen(pipe)` is a list that the UNet's calls are put into, as `(sample, timestep, answer)`."""

    def watch(pipe):
        calls = []

        def look(unet, args, answer):
            calls.append((args[0], float(args[1]), answer[0]))

        pipe.unet.register_forward_hook(look)
        return calls

    return watch


def imported(folder, *options, **others):
    given = {name.replace("_", "-"): str(value) for name, value in (FILES | others).items()}
    arguments = [text for name, value in given.items() for text in (f"--{name}", value)]
    assert main(["import-official", *arguments, *options, "--out", str(folder)]) == 0
    return MiniGPT5Pipeline.from_pretrained(folder)


def test_sd_turbo_paints_in_one_row(tmp_path, seen):
    turbo = stable_diffusion()
    turbo.register_modules(scheduler=EulerDiscreteScheduler(**TURBO))
    turbo.save_pretrained(tmp_path / "sd-turbo")
    options = ["--num-inference-steps", "1", "--guidance-scale", "0"]
    pipe = imported(tmp_path / "model", *options, sd=tmp_path / "sd-turbo")
    assert type(pipe.scheduler) is EulerDiscreteScheduler and pipe.scheduler.config.timestep_spacing == "trailing"

    calls = seen(pipe)
    reply = pipe(["a dog", "a cat"], image_mode="always", max_new_tokens=2, output_type="latent")
    ((sample, timestep, noise),) = calls
    assert len(sample) == 2 and timestep == 999
    # From pure noise straight to what is left where the noise is taken away.
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    share = (1 - betas).prod()
    sigma = float(((1 - share) / share).sqrt())
    painted = torch.stack([images[0] for images in reply.images])
    torch.testing.assert_close(painted, sample * (sigma**2 + 1) ** 0.5 - sigma * noise, atol=1e-4, rtol=1e-4)


def test_lcm_lora_is_loaded_folded_in_and_paints_in_four_rows(tmp_path, seen):
    unet = stable_diffusion().unet
    unet.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    torch.manual_seed(0)
    for name, parameter in unet.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    layers = get_peft_model_state_dict(unet)
    StableDiffusionPipeline.save_lora_weights(
        tmp_path / "lora", unet_lora_layers=layers, unet_lora_adapter_metadata=unet.peft_config["default"].to_dict()
    )

    pipe = imported(tmp_path / "model")
    before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
    pipe.painter.load_lora_weights(tmp_path / "lora")
    pipe.painter.fuse_lora()
    pipe.painter.unload_lora_weights()
    pipe.scheduler = LCMScheduler.from_config(pipe.scheduler.config)
    pipe.register_to_config(num_inference_steps=4, guidance_scale=0.0)
    pipe.save_pretrained(tmp_path / "lcm")

    again = MiniGPT5Pipeline.from_pretrained(tmp_path / "lcm")
    after = again.unet.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    low = {name.removesuffix(".lora_A.weight") for name in layers if "lora_A" in name}
    assert changed == {f"{name}.weight" for name in low}
    for name in low:
        product = layers[f"{name}.lora_B.weight"] @ layers[f"{name}.lora_A.weight"]
        torch.testing.assert_close(after[f"{name}.weight"], before[f"{name}.weight"] + 2 * product)

    calls = seen(again)
    again("a dog", image_mode="always", max_new_tokens=2)
    assert isinstance(again.scheduler, LCMScheduler)
    assert [(len(sample), timestep) for sample, timestep, _ in calls] == [(1, 999), (1, 759), (1, 499), (1, 259)]
