"""Pictures to latents and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput

from minigpt5.utils.files import whole_file
from minigpt5.utils.images import to_tensor


@torch.no_grad()
def encode_data_set(vae: AutoencoderKL, rows: Dataset, size: int, cache: Path) -> torch.Tensor:
    """Latents `(rows, channels, height, width)` of the column `image` in fp16, scaled for diffusion; computed once."""
    if cache.exists():
        return torch.load(cache, weights_only=True)
    batches = []
    for start in range(0, len(rows), 100):
        images = rows[start : start + 100]["image"]
        pixels = torch.stack([to_tensor(image, size) for image in images]).to(vae.device, vae.dtype)
        batches.append((_moments(vae, pixels).mode() * vae.config["scaling_factor"]).half().cpu())
    latents = torch.cat(batches)
    with whole_file(cache) as temporary:
        torch.save(latents, temporary)
    return latents


def _moments(vae: AutoencoderKL, pixels: torch.Tensor) -> DiagonalGaussianDistribution:
    return cast(AutoencoderKLOutput, vae.encode(pixels)).latent_dist


def psnr(decoded: torch.Tensor, pixels: torch.Tensor) -> float:
    """Mean over pictures of `psnr_of_each`."""
    return psnr_of_each(decoded, pixels).mean().item()


def psnr_of_each(decoded: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    """Each picture's peak signal-to-noise ratio in dB `(pictures,)`, for pixels in [-1, 1] taken to 8-bit range."""
    error = ((decoded.clamp(-1, 1) - pixels) / 2).square().mean(dim=(1, 2, 3))
    return -10 * torch.log10(error)


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, pixels: torch.Tensor) -> None:
    """Fold each latent channel's mean and deviation over `pixels` into the VAE's 1×1 convolutions.

    Afterwards latents have mean 0 and deviation 1 a channel, and decode as before.
    """
    latents = _moments(vae, pixels).mode()
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    channels = len(mean)
    quant, post = cast(Any, vae.quant_conv), cast(Any, vae.post_quant_conv)
    quant.bias[:channels] -= mean
    quant.weight[:channels] /= std.view(-1, 1, 1, 1)
    quant.bias[:channels] /= std
    # The second half of the moments is the log variance.
    quant.bias[channels:] -= 2 * std.log()
    post.bias += post.weight[:, :, 0, 0] @ mean
    post.weight *= std.view(1, -1, 1, 1)
