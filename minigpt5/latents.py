"""Pictures to latents and back."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL


def encode_pictures(vae: AutoencoderKL, pixels: torch.Tensor, generator: torch.Generator | None = None) -> torch.Tensor:
    """Sampled latents `(batch, channels, height / f, width / f)`, scaled for the diffusion, of pixels in [-1, 1]."""
    return vae.encode(pixels).latent_dist.sample(generator) * vae.config.scaling_factor


def psnr(decoded: torch.Tensor, pixels: torch.Tensor) -> float:
    """Mean over pictures of the peak signal-to-noise ratio in dB, for pixels in [-1, 1] taken to 8-bit range."""
    error = ((decoded.clamp(-1, 1) - pixels) / 2).square().mean(dim=(1, 2, 3))
    return (-10 * torch.log10(error)).mean().item()


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, pixels: torch.Tensor) -> None:
    """Fold each latent channel's mean and deviation over `pixels` into the VAE's 1×1 convolutions.

    Afterwards latents have mean 0 and deviation 1 a channel, and decode as before.
    """
    latents = vae.encode(pixels).latent_dist.mode()
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    channels = len(mean)
    quant, post = vae.quant_conv, vae.post_quant_conv
    quant.bias[:channels] -= mean
    quant.weight[:channels] /= std.view(-1, 1, 1, 1)
    quant.bias[:channels] /= std
    # The second half of the moments is the log variance.
    quant.bias[channels:] -= 2 * std.log()
    post.bias += (post.weight[:, :, 0, 0] @ mean)
    post.weight *= std.view(1, -1, 1, 1)
