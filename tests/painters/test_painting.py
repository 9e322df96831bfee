"""Every family paints through its own pipeline's call."""

import copy
import inspect

import numpy as np
import pytest
import torch
from diffusers import LCMScheduler, PixArtAlphaPipeline
from diffusers.guiders import AdaptiveProjectedGuidance, ClassifierFreeGuidance
from PIL import Image

from minigpt5.painters import Painter, TrainablePainter, painter_of, trainable

STEPS = 2


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


@pytest.fixture
def paint_by(random_conditioning):
    def run(painter, count=2, rows=slice(None), **options):
        given, null = random_conditioning(painter, count), random_conditioning(painter, 1, seed=9)
        given = {name: value[rows] for name, value in given.items()}
        options = {"generator": seeds(*range(count))[rows], "output_type": "latent", "guidance_scale": 3.0} | options
        sizes = {"height": painter.side, "width": painter.side, "num_inference_steps": STEPS}
        return painter.paint(given, null, **sizes | options)

    return run


@pytest.fixture
def paint(painter, paint_by):
    return lambda *arguments, **options: paint_by(painter, *arguments, **options)


def test_pictures_of_a_batch_are_those_painted_alone(painter, paint):
    together = paint()
    for row, picture in enumerate(together):
        alone = paint(rows=slice(row, row + 1))
        assert picture.shape == painter.latent_shape(painter.side, painter.side)
        torch.testing.assert_close(alone[0], picture, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_guidance_leads_away_from_the_null_features(painter, paint, random_conditioning):
    guided, plain = paint(guidance_scale=2.0), paint(guidance_scale=1.0)
    assert painter.guides(2.0) and not painter.guides(1.0)
    assert not torch.allclose(guided[0], plain[0], atol=1e-3)
    # Where they are the features themselves, there is nothing to lead away from.
    alone = {"count": 1, "generator": seeds(0), "guidance_scale": 2.0}
    own = random_conditioning(painter, 1)
    sizes = {"height": painter.side, "width": painter.side, "num_inference_steps": STEPS, "output_type": "latent"}
    same = painter.paint(own, own, guidance_scale=2.0, generator=seeds(0), **sizes)
    plain = painter.paint(own, guidance_scale=1.0, generator=seeds(0), **sizes)
    torch.testing.assert_close(same[0], plain[0], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(same[0], paint(**alone)[0], atol=1e-3)


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_output_types(painter, paint, output_type):
    first, second = paint(output_type=output_type)
    shape = (painter.side, painter.side)
    if output_type == "pil":
        assert isinstance(first, Image.Image) and first.size == shape and first.mode == "RGB"
        assert not np.array_equal(np.asarray(first), np.asarray(second))
    else:
        assert tuple(first.shape) == ((*shape, 3) if output_type == "np" else (3, *shape))
        assert isinstance(first, np.ndarray if output_type == "np" else torch.Tensor)
        assert first.min() >= 0 and first.max() <= 1


def test_a_callback_sees_every_step_and_may_change_the_latents(painter, paint):
    seen = []

    def zero_at_last(pipeline, step, timestep, tensors):
        seen.append((pipeline is painter.pipeline, step, float(timestep), set(tensors)))
        return {"latents": torch.zeros_like(tensors["latents"])} if step == STEPS - 1 else tensors

    pictures = paint(callback_on_step_end=zero_at_last)
    assert not torch.stack(pictures).any()
    timesteps = painter.pipeline.scheduler.timesteps
    assert seen == [(True, step, float(t), {"latents"}) for step, t in enumerate(timesteps)]


def test_noise_may_be_given(painter, paint):
    noise = torch.randn(2, *painter.latent_shape(painter.side, painter.side))
    first, second = paint(latents=noise, generator=seeds(1, 2)), paint(latents=noise, generator=seeds(3, 4))
    assert all(map(torch.equal, first, second)) and not torch.equal(first[0], paint()[0])


def test_text_encoders_have_no_part_in_it(painter, paint):
    """Another type of theirs would be taken for the features', and a pipeline without any paints the same."""
    pipeline = painter.pipeline
    encoders = [name for name in pipeline.components if name.startswith("text_encoder")]
    whole = paint()
    for name in encoders:
        getattr(pipeline, name).to(torch.bfloat16)
    try:
        assert all(map(torch.equal, paint(), whole))
        assert all(getattr(pipeline, name) is not None for name in encoders)
    finally:
        for name in encoders:
            getattr(pipeline, name).to(torch.float32)
    # Stable Diffusion 3's tokenizers tell it how many features text has.
    parts = ("text_encoder",) if painter.name == "StableDiffusion3Pipeline" else ("text_encoder", "tokenizer")
    own = [name for name in pipeline.components if name.startswith(parts)]
    lone = painter_of(type(pipeline)(**pipeline.components | dict.fromkeys(own)))
    lone.pipeline.set_progress_bar_config(disable=True)
    lone.side = painter.side
    assert lone.shapes().keys() == painter.shapes().keys()
    sizes = {"height": painter.side, "width": painter.side, "num_inference_steps": STEPS, "output_type": "latent"}
    conditioning = {name: torch.ones(1, *shape) for name, shape in painter.shapes().items()}
    ours, theirs = (p.paint(conditioning, generator=seeds(0), **sizes)[0] for p in (painter, lone))
    assert torch.equal(ours, theirs)


def test_half_precision_parts_may_differ(painter, paint_by):
    # A copy: what is rounded once (PixArt's positions, that no file has) stays rounded.
    denoiser = copy.deepcopy(painter.denoiser).to(torch.bfloat16)
    own = painter_of(type(painter.pipeline)(**painter.pipeline.components | {painter.denoiser_name: denoiser}))
    own.side = painter.side
    picture = paint_by(own, output_type="pt")[0]
    assert picture.dtype == torch.float32 and picture.isfinite().all()


@pytest.mark.parametrize("painter", ["stable_diffusion_3"], indirect=True)
def test_fewer_features_than_text_has_are_followed_by_the_zeros_of_a_missing_t5(painter, random_conditioning):
    few, null = random_conditioning(painter, 2), random_conditioning(painter, 1, seed=7)
    places = painter.pipeline.encode_prompt("a fox", None, None, max_sequence_length=77)[0].shape[1]

    def followed(conditioning):
        features = conditioning["prompt_embeds"]
        zeros = features.new_zeros(len(features), places - features.shape[1], features.shape[2])
        return conditioning | {"prompt_embeds": torch.cat([features, zeros], dim=1)}

    options = {"height": painter.side, "width": painter.side, "num_inference_steps": STEPS, "output_type": "latent"}
    short, whole = (
        painter.paint(*pair, 3.0, generator=seeds(0, 1), **options)
        for pair in ((few, null), (followed(few), followed(null)))
    )
    assert all(map(torch.equal, short, whole))
    guider = ClassifierFreeGuidance(guidance_scale=3.0)
    guided = painter.paint(few, null, guider=guider, generator=seeds(0, 1), **options)
    torch.testing.assert_close(guided, whole, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_the_guider_of_plain_guidance_is_plain_guidance(painter, paint, scale):
    if painter.name in ("QwenImagePipeline", "Lumina2Pipeline") and scale > 1:
        pytest.skip("its own guidance brings the guided prediction back to the length of the other")
    guided = paint(guider=ClassifierFreeGuidance(guidance_scale=scale), guidance_scale=None)
    for ours, theirs in zip(guided, paint(guidance_scale=scale), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_another_guider_guides_otherwise(painter, paint):
    projected = paint(guider=AdaptiveProjectedGuidance(guidance_scale=3.0, eta=0.0), guidance_scale=None)
    assert not torch.allclose(projected[0], paint()[0], atol=1e-3) and projected[0].isfinite().all()
    assert isinstance(painter.denoiser, torch.nn.Module)


# What is of one family only


def test_a_distilled_painter_is_one_with_other_settings(painters, paint_by):
    painter = painters("stable_diffusion")
    steps = []
    note = lambda *_: steps.append(1)  # noqa: E731
    hook = painter.denoiser.register_forward_hook(note)
    paint_by(painter, guidance_scale=0.0, num_inference_steps=1)
    hook.remove()
    assert len(steps) == 1


def test_pixart_alpha_takes_one_step_only_where_the_scheduler_tells_the_clean_sample(painters, paint_by):
    sigma = painters("pixart")
    painter = painter_of(PixArtAlphaPipeline(**sigma.pipeline.components))
    painter.side = sigma.side
    sigma.check_steps(1)
    painter.check_steps(2)
    with pytest.raises(ValueError, match="not DPMSolverMultistepScheduler"):
        painter.check_steps(1)
    painter.pipeline.register_modules(scheduler=LCMScheduler())
    painter.check_steps(1)
    assert paint_by(painter, num_inference_steps=1)[0].isfinite().all()


def test_a_callback_sees_the_conditional_half_and_may_end_guidance(painters, paint_by):
    painter, sizes, halves = painters("stable_diffusion"), [], []

    def cut(pipeline, step, timestep, tensors):
        halves.append(len(tensors["prompt_embeds"]))
        pipeline._guidance_scale = 0.0 if step == 0 else 3.0
        return {}

    hook = painter.denoiser.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    names = ["prompt_embeds"]
    paint_by(painter, num_inference_steps=3, callback_on_step_end=cut, callback_on_step_end_tensor_inputs=names)
    hook.remove()
    assert sizes == [4, 2, 4] and halves == [2, 2, 2]


def test_a_callback_may_change_the_features(painters, paint_by):
    painter = painters("stable_diffusion")

    def other(pipeline, step, timestep, tensors):
        return {"prompt_embeds": tensors["prompt_embeds"] * 2}

    options = {"callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    changed = paint_by(painter, callback_on_step_end=other, **options)
    assert not torch.allclose(changed[0], paint_by(painter)[0], atol=1e-3)


def test_a_callback_that_returns_nothing_is_an_error_of_its_own(painters, paint_by):
    with pytest.raises(TypeError, match="must return a dictionary of the tensors that change, got NoneType"):
        paint_by(painters("stable_diffusion"), callback_on_step_end=lambda *_: None)


def test_what_the_call_does_not_know_is_refused(painters, paint_by):
    painter = painters("pixart")
    with pytest.raises(ValueError, match="PixArtSigmaPipeline cannot be told sharpness"):
        paint_by(painter, sharpness=2)
    names = ["prompt_embeds"]
    with pytest.raises(ValueError, match=r"latents only, not \['prompt_embeds'\]"):
        paint_by(painter, callback_on_step_end=lambda *_: {}, callback_on_step_end_tensor_inputs=names)


@pytest.mark.parametrize(
    ("name", "conditioning", "says"),
    [
        ("flux", {"prompt_embeds": (1, 5, 32)}, "the mapper makes no pooled_prompt_embeds"),
        ("sana", {"prompt_embeds": (1, 5, 16)}, "wants prompt_embeds of width 32, but the mapper makes 16"),
        ("sana", {"prompt_embeds": (1, 5, 32), "pooled_prompt_embeds": (1, 8)}, "does not take"),
    ],
)
def test_conditioning_that_does_not_fit_is_refused(painters, name, conditioning, says):
    with pytest.raises(ValueError, match=says):
        painters(name).check_conditioning({key: torch.zeros(shape) for key, shape in conditioning.items()})


def test_shapes_are_those_of_the_pipeline_s_own_text_features(painter):
    shapes, features = painter.shapes(), painter.encode_captions(["a red fox", "a cat"])
    assert features.keys() - {"mask"} == shapes.keys()
    for name, shape in shapes.items():
        if painter.name != "QwenImagePipeline" or name != "prompt_embeds":
            assert features[name].shape == (2, *shape)
        else:
            # Qwen-Image's features are as many as its longest caption.
            assert features[name].shape[::2] == (2, shape[-1])
    assert features["prompt_embeds"].isfinite().all()


def test_without_text_encoders_captions_have_no_features(painter):
    pipeline = painter.pipeline
    names = [name for name in pipeline.components if name.startswith("text_encoder")]
    lone = painter_of(type(pipeline)(**pipeline.components | dict.fromkeys(names)))
    with pytest.raises(ValueError, match="text_encoder, which is missing"):
        lone.encode_captions(["a red fox"])


class Mute(torch.nn.Module):
    def __call__(self, image):
        return image


def test_pipelines_that_cannot_paint_from_embeddings_are_refused():
    class Upscaler:
        def __call__(self, image, prompt_embeds=None):
            return image

    with pytest.raises(ValueError, match="Mute cannot paint what vokens say: its call takes no prompt_embeds"):
        painter_of(Mute())
    with pytest.raises(ValueError, match="its call needs image"):
        painter_of(Upscaler())


def test_unknown_painters_paint_but_cannot_be_trained(painters):
    known = painters("stable_diffusion")
    other = Painter(known.pipeline)
    assert "loss" not in dict(inspect.getmembers(other)) and isinstance(trainable(known), TrainablePainter)
    with pytest.raises(ValueError, match="StableDiffusionPipeline paints, but cannot be trained") as refusal:
        trainable(other)
    assert "\n" not in str(refusal.value)


def test_the_default_guidance_is_what_leads_away_from_null_features(painter):
    """What distilled models call guidance, FLUX's 3.5, is none."""
    assert (
        painter.default_guidance_scale
        == {
            "StableDiffusionPipeline": 7.5,
            "StableDiffusionXLPipeline": 5.0,
            "StableDiffusion3Pipeline": 7.0,
            "FluxPipeline": 1.0,
            "SanaPipeline": 4.5,
            "PixArtSigmaPipeline": 4.5,
            "Lumina2Pipeline": 4.0,
            "QwenImagePipeline": 4.0,
        }[painter.name]
    )
