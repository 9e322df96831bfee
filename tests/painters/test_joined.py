"""`MiniGPT5Pipeline` around painters of every family: the call, folders and training are the same for all."""

import copy
import json
import random

import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from diffusers.guiders import ClassifierFreeGuidance

from minigpt5 import MiniGPT5Pipeline, VokenMapper
from minigpt5.data.tasks import draw_task
from minigpt5.painters import build_painter, take_apart
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.language import caption
from minigpt5.storyworld.scene import sample_scene
from minigpt5.training.objective import LossWeights, VokenModel

PROMPTS = ["Draw this: a red fox.", "And then?"]


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


@pytest.fixture
def join(tiny_pipe):
    """The tiny reader with a painter, and an untrained mapper between."""

    def build(painter, text_length=5, **options):
        shapes, (parts, settings) = painter.shapes(), take_apart(painter.pipeline)
        length, width = shapes.pop("prompt_embeds")
        # Of one text encoder there must be as many features as its own.
        length = length if painter.name == "StableDiffusionPipeline" else text_length
        torch.manual_seed(0)
        mapper = VokenMapper(
            voken_dim=tiny_pipe.mapper.config.voken_dim,
            text_dim=width,
            text_length=length,
            num_layers=1,
            num_heads=2,
            pooled_dims={name: pooled for name, (pooled,) in shapes.items()} or None,
        )
        pipe = MiniGPT5Pipeline(
            processor=tiny_pipe.processor,
            comprehension=copy.deepcopy(tiny_pipe.comprehension).requires_grad_(False),
            mapper=mapper.eval(),
            **parts | options,
            guidance_scale=3.0,
            num_inference_steps=2,
            painter_class=painter.name,
            painter_settings=settings,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return build


@pytest.fixture
def reply():
    def run(pipe, prompts=PROMPTS, side=16, **options):
        given = {"image_mode": "always", "max_new_tokens": 3, "output_type": "latent", "height": side, "width": side}
        return pipe(prompts, **given | {"generator": seeds(*range(len(prompts)))} | options)

    return run


def latents(output):
    return [picture for row in output.images for picture in row]


def test_every_painter_paints_what_vokens_say(painter, join, reply):
    pipe = join(painter)
    pictures = latents(reply(pipe, side=painter.side))
    alone = latents(reply(pipe, PROMPTS[1:], painter.side, generator=seeds(1)))
    torch.testing.assert_close(pictures[1], alone[0], atol=1e-4, rtol=1e-4)
    # Through the pipeline of diffusers, over the same modules.
    assert type(pipe.painter) is type(painter.pipeline) and pipe.painter is pipe.painter
    for name, part in take_apart(painter.pipeline)[0].items():
        assert getattr(pipe.painter, name) is part
    features = pipe.conditioning(torch.zeros(1, 8, 192))
    for name, value in pipe.null_conditioning().items():
        assert torch.equal(value, features[name]) and value.shape[1:] == features[name].shape[1:]
    plain = latents(reply(pipe, side=painter.side, guidance_scale=1.0))
    assert not torch.allclose(plain[0], pictures[0], atol=1e-3)


def test_callbacks_see_the_pipeline_that_was_called(painter, join, reply):
    pipe, seen = join(painter), []

    def zero_at_last(owner, step, timestep, tensors):
        seen.append((owner is pipe, step, owner.num_timesteps, owner.guidance_scale))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 1 else {}

    assert not torch.stack(latents(reply(pipe, side=painter.side, callback_on_step_end=zero_at_last))).any()
    assert seen == [(True, 0, 2, 3.0), (True, 1, 2, 3.0)]


def test_a_callback_may_end_guidance(painter, join, reply):
    pipe = join(painter)

    def end(owner, step, timestep, tensors):
        owner._guidance_scale = 1.0
        return {}

    ended, guided = (
        torch.stack(latents(reply(pipe, side=painter.side, callback_on_step_end=callback))) for callback in (end, None)
    )
    assert ended.shape == guided.shape
    if hasattr(type(painter.pipeline), "do_classifier_free_guidance") and painter.pipeline._callback_tensor_inputs:
        assert not torch.equal(ended, guided)


def test_an_interrupted_call_leaves_the_next_one_as_it_was(painter, join, reply):
    pipe, seen = join(painter), []
    plain = torch.stack(latents(reply(pipe, side=painter.side)))

    def stop(owner, step, timestep, tensors):
        seen.append(step)
        owner._interrupt = True
        return {}

    reply(pipe, side=painter.side, callback_on_step_end=stop)
    assert seen == ([0] if hasattr(type(painter.pipeline), "interrupt") else [0, 1])
    assert torch.equal(torch.stack(latents(reply(pipe, side=painter.side))), plain)


def test_from_pipe_takes_over_what_paints(painter, join):
    pipe = join(painter)
    parts = {name: getattr(pipe, name) for name in ("comprehension", "processor", "mapper")}
    again = MiniGPT5Pipeline.from_pipe(painter.pipeline, **parts)
    for name in ("painter_class", "painter_settings"):
        assert again.config[name] == pipe.config[name]


def test_a_folder_is_the_painter_s_own_and_more(painter, join, reply, tmp_path):
    pipe = join(painter)
    pipe.save_pretrained(tmp_path)
    again = MiniGPT5Pipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    for ours, theirs in zip(*(latents(reply(one, side=painter.side)) for one in (again, pipe)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    # Diffusers opens its part of the folder.
    alone = type(painter.pipeline).from_pretrained(tmp_path, dtype=torch.float32)
    for name, part in take_apart(painter.pipeline)[0].items():
        if isinstance(part, torch.nn.Module):
            own = getattr(alone, name).state_dict()
            assert all(torch.equal(own[key], value) for key, value in part.state_dict().items())


def test_vokens_learn_to_paint_by_every_painter(painter, join, monkeypatch):
    """The losses of both stages, and gradients in every part of the mapper."""
    pipe = join(painter, text_length=6)
    monkeypatch.setattr(type(painter), "default_size", property(lambda own: (painter.side, painter.side)))
    model = VokenModel(pipe, LossWeights(guidance_dropout=0.0, snr_gamma=None))
    scenes = [sample_scene(random.Random(seed)) for seed in range(2)]
    captions = [caption(scene, random.Random(0)) for scene in scenes]
    pairs = zip(captions, scenes, strict=True)
    batch = pipe.processor.training_batch([draw_task(text, draw(scene), random.Random(0)) for text, scene in pairs])
    losses = model(model.prepare(batch), captions)
    assert losses.keys() == {"loss", "text", "caption", "ldm"}
    losses["loss"].backward()
    for name, parameter in pipe.mapper.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
    assert not any(p.requires_grad for p in painter.denoiser.parameters())


def test_features_of_captions_are_cached_whatever_there_is_of_them(painters, join, tmp_path):
    """Also the pooled ones, and the mask."""
    for name, kinds in (("stable_diffusion_3", {"pooled_prompt_embeds"}), ("sana", {"mask"})):
        pipe = join(painters(name), text_length=9)
        model = VokenModel(pipe, LossWeights())
        told = ["a red fox", "a blue cat in the forest", "a red fox"]
        plain = model.encode_captions(told)
        assert plain.keys() == {"prompt_embeds"} | kinds
        model.cache_features(tmp_path / name)
        first = model.encode_captions(told)
        assert first["prompt_embeds"].shape[:2] == (3, 9)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(model.painter), "encode_captions", None)
            again = model.encode_captions(told)
        for key, value in plain.items():
            torch.testing.assert_close(first[key], value)
            assert torch.equal(again[key], first[key])


def test_a_vector_is_no_sequence(painters, join, reply):
    pipe = join(painters("flux"))
    sizes = {"voken_dim": 192, "text_dim": 32, "text_length": 5, "num_layers": 1, "num_heads": 2}
    pipe.mapper = VokenMapper(**sizes, sequence_dims={"pooled_prompt_embeds": 32})
    with pytest.raises(ValueError, match=r"FluxPipeline wants vectors of pooled_prompt_embeds, but .* makes \(5, 32\)"):
        reply(pipe)


def test_the_mapper_must_make_what_the_painter_wants(painters, join, reply):
    pipe = join(painters("flux"))
    pipe.mapper = VokenMapper(voken_dim=192, text_dim=32, text_length=5, num_layers=1, num_heads=2)
    with pytest.raises(ValueError, match="FluxPipeline is conditioned on prompt_embeds, pooled_prompt_embeds, but"):
        reply(pipe)
    with pytest.raises(ValueError, match="but the mapper makes no pooled_prompt_embeds"):
        VokenModel(pipe, LossWeights())


# The shipped kind


def test_a_guider_takes_the_place_of_plain_guidance(painters, join, reply, tmp_path):
    painter = painters("stable_diffusion")
    plain, guided = join(painter), join(painter, guider=ClassifierFreeGuidance(guidance_scale=3.0))
    for ours, theirs in zip(latents(reply(guided)), latents(reply(plain)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="a ClassifierFreeGuidance guides this pipeline"):
        reply(guided, guidance_scale=2.0)
    guided.save_pretrained(tmp_path)
    assert MiniGPT5Pipeline.from_pretrained(tmp_path).guider.config.guidance_scale == 3.0


def test_parts_that_came_later_are_saved_and_those_that_went_are_not(painters, join, tmp_path):
    painter = painters("stable_diffusion")
    pipe = join(painter, text_encoder=None)
    pipe.guider, pipe.text_encoder = ClassifierFreeGuidance(guidance_scale=3.0), painter.pipeline.text_encoder
    pipe.save_pretrained(tmp_path / "more")
    again = MiniGPT5Pipeline.from_pretrained(tmp_path / "more")
    assert again.guider.config.guidance_scale == 3.0
    assert type(again.text_encoder) is type(painter.pipeline.text_encoder)
    again.guider = again.text_encoder = None
    again.save_pretrained(tmp_path / "less")
    opened = MiniGPT5Pipeline.from_pretrained(tmp_path / "less")
    assert opened.guider is None
    assert opened.text_encoder is None


def test_the_painter_paints_a_prompt_where_the_text_encoder_is(painters, join):
    pipe = join(painters("stable_diffusion"))
    options = {"num_inference_steps": 2, "output_type": "latent"}
    picture = pipe.painter("a red fox", generator=seeds(0), **options).images[0]
    assert torch.equal(
        picture, painters("stable_diffusion").pipeline("a red fox", generator=seeds(0), **options).images[0]
    )


def test_the_painter_follows_the_pipeline_s_parts(painters, join):
    pipe = join(painters("stable_diffusion"))
    before = pipe.painter
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    assert pipe.painter is not before and pipe.painter.scheduler is pipe.scheduler


def test_making_a_painter_corrects_nobody_s_scheduler(tiny_pipe):
    """Stable Diffusion's pipeline would set steps_offset to 1 and clip_sample to False, in place."""
    config = dict(tiny_pipe.scheduler.config, clip_sample=True)
    scheduler = type(tiny_pipe.scheduler).from_config(config)
    painter = MiniGPT5Pipeline.from_pipe(tiny_pipe, scheduler=scheduler).painter
    assert painter.scheduler is scheduler and isinstance(painter, StableDiffusionPipeline)
    assert scheduler.config.clip_sample and scheduler.config.steps_offset == 0


@pytest.mark.parametrize("name", ["StableDiffusion9Pipeline", "UNet2DConditionModel", "os"])
def test_a_painter_that_diffusers_does_not_have_is_refused(name):
    with pytest.raises(ValueError, match=f"painter_class must be the name of a pipeline of diffusers, got '{name}'"):
        build_painter(name, {})


def test_folders_of_version_0_1_open_as_stable_diffusion(tiny_folder, tmp_path):
    index = json.loads((tiny_folder / "model_index.json").read_text())
    old = {"_class_name", "_diffusers_version", "comprehension", "guidance_scale", "mapper", "num_inference_steps"}
    old |= {"processor", "scheduler", "text_encoder", "tokenizer", "unet", "vae"}
    for part in tiny_folder.iterdir():
        (tmp_path / part.name).symlink_to(part)
    (tmp_path / "model_index.json").unlink()
    (tmp_path / "model_index.json").write_text(json.dumps({key: index[key] for key in old}))
    pipe = MiniGPT5Pipeline.from_pretrained(tmp_path)
    assert pipe.config.painter_class == "StableDiffusionPipeline" and pipe.transformer is None
    assert isinstance(pipe.painter, StableDiffusionPipeline)
