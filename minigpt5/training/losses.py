"""The losses of MiniGPT-5's two stages (arXiv 2310.02239, equations 5 to 8)."""

from __future__ import annotations

import torch
from diffusers.training_utils import compute_snr
from torch.nn.functional import mse_loss


def stratified_timesteps(count: int, num_train_timesteps: int, device: torch.device | str) -> torch.Tensor:
    """One random timestep from each of `count` equal parts of the schedule: `(count,)`, in random order."""
    steps = (torch.randperm(count, device=device) + torch.rand(count, device=device)) / count
    return (steps * num_train_timesteps).long().clamp(max=num_train_timesteps - 1)


def latent_diffusion_loss(
    unet,
    scheduler,
    latents: torch.Tensor,
    text_features: torch.Tensor,
    timesteps: torch.Tensor,
    noise: torch.Tensor,
    snr_gamma: float | None = None,
) -> torch.Tensor:
    """L_LDM, equation 6: the UNet's error on noised latents given text features.

    Args:
        latents, noise: `(pictures, channels, height, width)`, latents scaled.
        text_features: `(pictures, text_length, text_dim)`.
        timesteps: `(pictures,)`.
        snr_gamma: each picture's error is weighted by min(SNR, gamma) / SNR, or / (SNR + 1) for v-prediction
            (Min-SNR, arXiv 2303.09556); `None` weights all alike.
    """
    noisy = scheduler.add_noise(latents, noise, timesteps)
    velocity = scheduler.config.prediction_type == "v_prediction"
    target = scheduler.get_velocity(latents, noise, timesteps) if velocity else noise
    predicted = unet(noisy, timesteps, encoder_hidden_states=text_features).sample
    error = (predicted.float() - target.float()).square().mean(dim=(1, 2, 3))
    if snr_gamma is not None:
        snr = compute_snr(scheduler, timesteps)
        error = error * snr.clamp(max=snr_gamma) / (snr + 1 if velocity else snr)
    return error.mean()


def caption_loss(mapped: torch.Tensor, text_features: torch.Tensor) -> torch.Tensor:
    """L_CAP, equation 7: squared distance of mapped voken features to the text encoder's features of the caption."""
    return mse_loss(mapped.float(), text_features.float())


def drop_for_guidance(count: int, share: float, device: torch.device | str) -> torch.Tensor:
    """Which of `count` pictures train the unconditional half: a bool mask `(count,)`, each true with chance `share`."""
    return torch.rand(count, device=device) < share
