import pytest
import torch
from diffusers import DDIMScheduler, LCMScheduler
from PIL import Image

from minigpt5 import MiniGPT5Pipeline
from minigpt5.painters.schedules import training_schedule
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.tasks import fresh_items
from minigpt5.storyworld.wishes import paint
from minigpt5.training.distillation import ConsistencyModel

CONFIG = "configs/storyworld-mini/distill.yaml"


@pytest.fixture
def pipe():
    return MiniGPT5Pipeline.from_pretrained("storyworld-mini")


@pytest.fixture
def batch(pipe):
    def make(model):
        chats = [item.messages(draw) for item in fresh_items(paint, 2)]
        return model.vokens.prepare(pipe.reader.training_batch(chats))

    return make


def test_the_parts_of_noised_latents_are_found_in_every_prediction():
    latents, noise, times = torch.randn(3, 4, 2, 2), torch.randn(3, 4, 2, 2), torch.tensor([10, 500, 900])
    for kind in ("epsilon", "v_prediction", "sample"):
        schedule = training_schedule(DDIMScheduler(prediction_type=kind))
        noisy, answer = schedule.noised(latents, noise, times), schedule.target(latents, noise, times)
        for found, put_in in zip(schedule.split(answer, noisy, times), (latents, noise), strict=True):
            assert torch.allclose(found, put_in, atol=1e-3)


def test_the_teacher_s_step_is_that_of_diffusers_ddim(pipe):
    model = ConsistencyModel(pipe, guidance_scale=2.5)
    scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(50)
    noisy, conditioning = torch.randn(1, 4, 16, 16), {"prompt_embeds": torch.randn(1, 32, 128)}
    with torch.no_grad():
        null = pipe.null_conditioning()["prompt_embeds"]
        away, towards = (pipe.unet(noisy, 499, rows).sample for rows in (null, conditioning["prompt_embeds"]))
        wanted = scheduler.step(away + 2.5 * (towards - away), 499, noisy).prev_sample
    stepped = model.guided_step(noisy, torch.tensor([499]), torch.tensor([479]), conditioning)
    assert torch.allclose(stepped, wanted, atol=1e-4)


def test_at_time_zero_the_student_tells_what_it_is_shown(pipe):
    model = ConsistencyModel(pipe, guidance_scale=2.5)
    noisy, conditioning = torch.randn(1, 4, 16, 16), {"prompt_embeds": torch.randn(1, 32, 128)}
    assert torch.equal(model.consistent(noisy, torch.tensor([0]), conditioning), noisy)


def test_only_the_student_learns(pipe, batch):
    model = ConsistencyModel(pipe, guidance_scale=2.5).train()
    loss = model(batch(model), places=torch.tensor([25, 50]))["loss"]
    loss.backward()
    assert loss.item() > 0
    learnt = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learnt and all(name.startswith("vokens.unet.") for name in learnt)
    assert not any(parameter.requires_grad for parameter in model.teacher_denoiser.parameters())


def test_a_teacher_in_bf16_is_asked_in_its_type(batch):
    low = MiniGPT5Pipeline.from_pretrained("storyworld-mini", dtype=torch.bfloat16)
    model = ConsistencyModel(low, guidance_scale=2.5)
    assert model(batch(model), places=torch.tensor([25, 50]))["loss"].isfinite()


def test_a_batch_without_a_picture_to_paint_teaches_nothing(pipe):
    model = ConsistencyModel(pipe, guidance_scale=2.5).train()
    talk = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Good morning."}]
    loss = model(model.vokens.prepare(pipe.reader.training_batch([talk])))["loss"]
    loss.backward()
    assert loss.item() == 0
    gradients = [p.grad for p in model.student.denoiser.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_a_distilled_pipeline_paints_in_few_steps_by_default(run_program, small_world, tmp_path, capsys):
    few = (
        "--mixed_precision",
        "no",
        "--steps",
        2,
        "--batch_size",
        2,
        "--mix",
        "{draw: 2}",
        "--judged",
        1,
        "--num_inference_steps",
        3,
    )
    arguments = ("--config", CONFIG, "--data", small_world, "--model", "storyworld-mini", "--out", tmp_path)
    run_program("training/distill_painter", *arguments, *few, "--report_to", "null")
    assert "minus_loss" in capsys.readouterr().out
    assert Image.open(tmp_path / "samples/painted-00000002.png").height == 128

    pipe = MiniGPT5Pipeline.from_pretrained(tmp_path / "model")
    assert isinstance(pipe.scheduler, LCMScheduler) and pipe.scheduler.config.original_inference_steps == 50
    rows = []
    pipe.unet.register_forward_pre_hook(lambda module, inputs: rows.append(len(inputs[0])))
    assert len(pipe("Draw this: a red fox.", image_mode="always", max_images=1).images[0]) == 1
    assert rows == [1, 1, 1]


def test_a_flow_has_no_ladder(pipe):
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="FlowMatchEulerDiscreteScheduler has no ladder of timesteps"):
        ConsistencyModel(pipe, guidance_scale=2.5)
