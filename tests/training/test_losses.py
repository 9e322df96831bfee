"""Losses against cases worked by hand."""

from types import SimpleNamespace

import pytest
import torch
from diffusers import DDPMScheduler

from minigpt5.training.losses import caption_loss, drop_for_guidance, latent_diffusion_loss, stratified_timesteps


class Guess:
    """A UNet that always predicts one value, and remembers what it was given."""

    def __init__(self, value):
        self.value = value

    def __call__(self, noisy, timesteps, encoder_hidden_states):
        self.noisy, self.features = noisy, encoder_hidden_states
        return SimpleNamespace(sample=torch.full_like(noisy, self.value))


def scheduler(prediction_type, share):
    """One timestep at which `share` of the variance is signal."""
    return DDPMScheduler(num_train_timesteps=1, trained_betas=[1 - share], prediction_type=prediction_type)


def loss(prediction_type, share=0.8, gamma=None, guess=0.0, latent=2.0, noise=1.0):
    unet = Guess(guess)
    shape = (2, 1, 2, 2)
    value = latent_diffusion_loss(
        unet,
        scheduler(prediction_type, share),
        torch.full(shape, latent),
        torch.zeros(2, 3, 4),
        torch.zeros(2, dtype=torch.long),
        torch.full(shape, noise),
        gamma,
    )
    return value.item(), unet


def test_epsilon_is_compared_with_the_noise():
    assert loss("epsilon", noise=3.0, guess=1.0)[0] == pytest.approx(4.0)


def test_v_prediction_is_compared_with_the_velocity():
    velocity = 0.8**0.5 * 1.0 - 0.2**0.5 * 2.0
    assert loss("v_prediction", guess=0.5)[0] == pytest.approx((0.5 - velocity) ** 2, rel=1e-5)


def test_the_unet_sees_noised_latents():
    unet = loss("epsilon")[1]
    assert torch.allclose(unet.noisy, torch.tensor(0.8**0.5 * 2.0 + 0.2**0.5 * 1.0))


@pytest.mark.parametrize(("share", "weight"), [(0.8, 1.0), (0.9, 5 / 9)])
def test_min_snr_of_epsilon_divides_by_the_snr(share, weight):
    """Signal to noise 4 is below gamma, 9 is above."""
    assert loss("epsilon", share, gamma=5.0)[0] == pytest.approx(weight * 1.0, rel=1e-4)


@pytest.mark.parametrize(("share", "weight"), [(0.8, 4 / 5), (0.9, 5 / 10)])
def test_min_snr_of_v_prediction_divides_by_the_snr_plus_one(share, weight):
    plain, weighted = (loss("v_prediction", share, gamma)[0] for gamma in (None, 5.0))
    assert weighted == pytest.approx(weight * plain, rel=1e-4)


def test_min_snr_stays_finite_in_pure_noise():
    assert loss("v_prediction", 0.0, gamma=5.0)[0] == 0.0


def test_caption_loss_is_the_mean_squared_distance_in_fp32():
    mapped = torch.tensor([[[1.0, 2.0]]], dtype=torch.bfloat16)
    value = caption_loss(mapped, torch.tensor([[[3.0, 2.0]]]))
    assert value.item() == 2.0 and value.dtype == torch.float32


@pytest.mark.parametrize("count", [1, 7, 40])
def test_stratified_timesteps_take_one_from_each_part(count):
    steps = stratified_timesteps(count, 1000, "cpu")
    assert steps.dtype == torch.long and steps.min() >= 0 and steps.max() < 1000
    # A part may end within a timestep, so its share is taken from the timestep's upper edge downwards.
    for part, step in enumerate(steps.sort().values.tolist()):
        assert part * 1000 // count <= step <= (part + 1) * 1000 / count


def test_stratified_timesteps_are_shuffled():
    torch.manual_seed(0)
    steps = stratified_timesteps(40, 1000, "cpu")
    assert not torch.equal(steps, steps.sort().values)


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_guidance_dropout_drops_its_share(share):
    torch.manual_seed(0)
    dropped = drop_for_guidance(5000, share, "cpu")
    assert dropped.dtype == torch.bool and dropped.float().mean().item() == pytest.approx(share, abs=0.02)
