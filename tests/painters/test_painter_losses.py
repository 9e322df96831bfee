"""Each family's loss against a forward of its diffusers model made by hand, against its sampler, and in training."""

import copy

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    EDMEulerScheduler,
    FlowMatchEulerDiscreteScheduler,
    UniPCMultistepScheduler,
)

from minigpt5.painters import painter_of
from minigpt5.painters.schedules import BetaSchedule

COUNT = 3


def example(painter, random_conditioning):
    """Latents, noise, times and features of three pictures."""
    torch.manual_seed(3)
    latents = torch.randn(COUNT, *painter.latent_shape(painter.side, painter.side))
    beta = isinstance(painter.schedule, BetaSchedule)
    times = torch.tensor([20, 500, 960]) if beta else torch.tensor([0.1, 0.5, 0.95])
    return latents, torch.randn_like(latents), times, random_conditioning(painter, COUNT)


def beta_noised(pipeline, latents, noise, times):
    keys = ("beta_start", "beta_end", "beta_schedule")
    scheduler = DDPMScheduler(**{key: pipeline.scheduler.config[key] for key in keys})
    return scheduler.add_noise(latents, noise, times), scheduler


def packed(latents):
    """Every 2 × 2 latents of all channels in a row, channel by channel."""
    count, channels, height, width = latents.shape
    blocks = [
        latents[:, :, y : y + 2, x : x + 2].reshape(count, 4 * channels)
        for y in range(0, height, 2)
        for x in range(0, width, 2)
    ]
    return torch.stack(blocks, dim=1)


def by_hand(name, pipeline, latents, noise, times, features):
    """The prediction of the diffusers model and what it should have been."""
    embeds, pooled = features["prompt_embeds"], features.get("pooled_prompt_embeds")
    mask = torch.ones(embeds.shape[:2], dtype=torch.long)
    share = times.view(-1, 1, 1, 1)
    line, velocity = (1 - share) * latents + share * noise, noise - latents
    side = latents.shape[-1]
    if name.startswith("stable_diffusion") and name != "stable_diffusion_3":
        noisy, scheduler = beta_noised(pipeline, latents, noise, times)
        added = {}
        if pooled is not None:
            ids = torch.tensor([[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]] * COUNT)
            added = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": ids}}
        predicted = pipeline.unet(noisy, times, embeds, **added).sample
        return predicted, scheduler.get_velocity(latents, noise, times) if name.endswith("_v") else noise
    if name == "pixart":
        noisy, _ = beta_noised(pipeline, latents, noise, times)
        size = {"resolution": None, "aspect_ratio": None}
        options = {"encoder_attention_mask": mask, "timestep": times, "added_cond_kwargs": size}
        return pipeline.transformer(noisy, embeds, **options).sample.chunk(2, dim=1)[0], noise
    if name == "stable_diffusion_3":
        places = pipeline.encode_prompt("a fox", None, None, max_sequence_length=77)[0].shape[1]
        embeds = torch.cat([embeds, embeds.new_zeros(COUNT, places - embeds.shape[1], embeds.shape[2])], dim=1)
        return pipeline.transformer(line, embeds, pooled, 1000 * times).sample, velocity
    if name == "sana":
        return pipeline.transformer(line, embeds, 1000 * times, encoder_attention_mask=mask).sample, velocity
    if name == "lumina2":
        return -pipeline.transformer(line, 1 - times, embeds, mask.bool()).sample, velocity
    tokens = packed(line)
    if name == "qwen_image":
        shapes = [[(1, side // 2, side // 2)]] * COUNT
        options = {"timestep": times, "img_shapes": shapes}
        return pipeline.transformer(tokens, embeds, mask, **options).sample, packed(velocity)
    places = [[0, y, x] for y in range(side // 2) for x in range(side // 2)]
    predicted = pipeline.transformer(
        tokens,
        embeds,
        pooled,
        times,
        img_ids=torch.tensor(places, dtype=torch.float32),
        txt_ids=torch.zeros(embeds.shape[1], 3),
        guidance=torch.full((COUNT,), 3.5) if name == "flux_dev" else None,
    ).sample
    return predicted, packed(velocity)


@pytest.fixture
def name(painter, painters, request):
    return request.node.callspec.params["painter"]


@torch.no_grad()
def test_the_loss_is_the_error_of_a_forward_made_by_hand(name, painter, random_conditioning):
    latents, noise, times, features = example(painter, random_conditioning)
    predicted, target = by_hand(name, painter.pipeline, latents, noise, times, features)
    expected = (predicted - target).square().mean()
    loss = painter.loss(latents, features, times=times, noise=noise)
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)
    # The features matter, the pooled ones too.
    for key, value in features.items():
        other = painter.loss(latents, features | {key: 10 * value.flip(0)}, times=times, noise=noise)
        assert abs(other - expected) > 1e-6


@torch.no_grad()
def test_what_training_takes_for_the_prediction_the_sampler_does_too(painter, random_conditioning):
    """One unguided step from noise ends at the latents that the prediction, as training reads it, implies."""
    features, schedule = random_conditioning(painter, 2), painter.schedule
    noise = torch.randn(2, *painter.latent_shape(painter.side, painter.side))
    sizes = {"height": painter.side, "width": painter.side, "num_inference_steps": 1, "output_type": "latent"}
    ended = torch.stack(painter.paint(features, latents=noise, **sizes))
    t = painter.pipeline.scheduler.timesteps[:1].float()
    times = t.long() if isinstance(schedule, BetaSchedule) else painter.pipeline.scheduler.sigmas[:1]
    predicted = painter.predict(noise, t.expand(2), features)
    signal, spread = (level.view(-1, 1, 1, 1) for level in schedule.levels(times))
    implied = {
        "epsilon": (noise - spread * predicted) / signal,
        "v_prediction": signal * noise - spread * predicted,
        "flow_prediction": noise - spread * predicted,
    }[schedule.prediction_type]
    torch.testing.assert_close(ended, implied, atol=1e-2, rtol=1e-2)


@torch.no_grad()
def test_latents_of_a_picture_are_decoded_to_it(painter):
    """What the pipeline does to latents before it decodes them is undone by what is done after encoding."""
    pipeline, seen = painter.pipeline, []
    pixels = torch.rand(2, 3, painter.side, painter.side) * 2 - 1
    moments = painter.encode(pixels)
    own_shape = painter.latent_shape(painter.side, painter.side)
    latents = painter.latents(moments, torch.zeros(2, *own_shape))
    assert latents.shape == (2, *own_shape)
    if painter.name == "SanaPipeline":
        own = pipeline.vae.encode(pixels).latent
    elif painter.name == "QwenImagePipeline":
        own = pipeline.vae.encode(pixels.unsqueeze(2)).latent_dist.mode().squeeze(2)
    else:
        own = pipeline.vae.encode(pixels).latent_dist.mode()
    shown = painter.pack(latents) if hasattr(painter, "pack") else latents
    decode = pipeline.vae.decode
    features = {key: torch.zeros(2, *shape) for key, shape in painter.shapes().items()}
    sizes = {"height": painter.side, "width": painter.side, "num_inference_steps": 1, "output_type": "pt"}

    def end(owner, step, timestep, tensors):
        return {"latents": shown}

    pipeline.vae.decode = lambda z, *args, **kwargs: seen.append(z) or decode(z, *args, **kwargs)
    try:
        painted = painter.paint(features, callback_on_step_end=end, **sizes)
    finally:
        del pipeline.vae.decode
    torch.testing.assert_close(seen[0].reshape(own.shape), own, atol=1e-5, rtol=1e-4)
    for picture, same in zip(painted, painter.decode(shown, painter.side, painter.side), strict=True):
        levels = torch.from_numpy(np.asarray(same).copy()).permute(2, 0, 1) / 255
        assert (levels - picture).abs().max() < 1 / 255
    torch.manual_seed(0)
    drawn = painter.latents(moments)
    assert torch.equal(drawn, latents) == (painter.name == "SanaPipeline")


def test_one_pair_can_be_learnt_by_heart(painter, random_conditioning):
    features = {key: value.clone() for key, value in random_conditioning(painter, 1).items()}
    latents = torch.randn(1, *painter.latent_shape(painter.side, painter.side))
    denoiser = copy.deepcopy(painter.denoiser).requires_grad_(True)
    own = painter_of(type(painter.pipeline)(**painter.pipeline.components | {painter.denoiser_name: denoiser}))
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-2)

    def loss(count=6):
        torch.manual_seed(0)
        many = {key: value.expand(count, *value.shape[1:]) for key, value in features.items()}
        return own.loss(latents.expand(count, -1, -1, -1), many)

    before = loss().item()
    for _ in range(30):
        optimizer.zero_grad()
        loss().backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
    assert loss().item() < 0.5 * before


def test_gradients_reach_everything_that_paints_are_conditioned_on(painter, random_conditioning):
    features = {key: value.requires_grad_(True) for key, value in random_conditioning(painter, 2).items()}
    painter.loss(torch.randn(2, *painter.latent_shape(painter.side, painter.side)), features).backward()
    for value in features.values():
        assert value.grad.isfinite().all() and value.grad.any(dim=-1).all()


@torch.no_grad()
@pytest.mark.parametrize("sampler", [UniPCMultistepScheduler, DDIMScheduler])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_another_sampler_trains_the_same(painters, random_conditioning, sampler, prediction_type):
    painter = painters("stable_diffusion")
    latents, noise, times, features = example(painter, random_conditioning)
    config = {**painter.pipeline.scheduler.config, "prediction_type": prediction_type}
    losses = []
    for kind in (DDPMScheduler, sampler):
        scheduler = kind.from_config(config)
        scheduler.set_timesteps(4)
        own = painter_of(type(painter.pipeline)(**painter.pipeline.components | {"scheduler": scheduler}))
        losses.append(own.loss(latents, features, 5.0, times=times, noise=noise))
    torch.testing.assert_close(losses[1], losses[0])


@torch.no_grad()
def test_edm_and_flow_train_unets_too(painters, random_conditioning):
    painter = painters("stable_diffusion_xl")
    latents, noise, _, features = example(painter, random_conditioning)
    times = torch.tensor([0.1, 0.5, 0.9])
    for scheduler in (EDMEulerScheduler(), FlowMatchEulerDiscreteScheduler()):
        own = painter_of(type(painter.pipeline)(**painter.pipeline.components | {"scheduler": scheduler}))
        assert own.loss(latents, features, times=times, noise=noise).isfinite()
        assert own.loss(latents, features).isfinite()


@torch.no_grad()
def test_min_snr_weights_each_picture(painters, random_conditioning):
    painter = painters("stable_diffusion")
    latents, noise, times, features = example(painter, random_conditioning)
    alone = [
        painter.loss(
            latents[i : i + 1],
            {k: v[i : i + 1] for k, v in features.items()},
            times=times[i : i + 1],
            noise=noise[i : i + 1],
        )
        for i in range(COUNT)
    ]
    weights = painter.schedule.weights(times, 5.0)
    expected = (torch.stack(alone) * weights).mean()
    torch.testing.assert_close(painter.loss(latents, features, 5.0, times=times, noise=noise), expected)
    assert len(set(weights.tolist())) > 1
