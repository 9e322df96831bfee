"""Pictures to latents and back."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset, Image
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput

from minigpt5.data.features import content_key, part_key
from minigpt5.utils.files import whole_file
from minigpt5.utils.images import to_tensor


@torch.no_grad()
def encode_data_set(vae: AutoencoderKL, rows: Dataset, size: int, cache: Path) -> torch.Tensor:
    """Latents `(rows, channels, height, width)` of the column `image` in fp16, scaled for diffusion.

    They are computed once, and anew where `cache` is of another VAE or size, or of other pictures.
    """
    weights, scale = vae.state_dict(), vae.config["scaling_factor"]
    key = part_key(*weights.values(), names=list(weights), scale=scale, size=size, pictures=_pictures_key(rows))
    if cache.exists():
        kept = torch.load(cache, weights_only=True)
        if isinstance(kept, dict) and kept["key"] == key:
            return kept["latents"]
    batches = []
    for start in range(0, len(rows), 100):
        images = rows[start : start + 100]["image"]
        pixels = torch.stack([to_tensor(image, size) for image in images]).to(vae.device, vae.dtype)
        batches.append((_moments(vae, pixels).mode() * scale).half().cpu())
    latents = torch.cat(batches)
    with whole_file(cache) as temporary:
        torch.save({"key": key, "latents": latents}, temporary)
    return latents


def _pictures_key(rows: Dataset) -> str:
    """What tells pictures from others: what their files hold, or where these lie, their sizes and times."""
    stored: Any = rows.select_columns("image").cast_column("image", Image(decode=False))["image"]
    told = [_stamp(one["path"]) if one["bytes"] is None else hashlib.sha256(one["bytes"]).hexdigest() for one in stored]
    return content_key(str(told))


def _stamp(path: str) -> tuple[str, int, int]:
    found = os.stat(path)
    return path, found.st_size, found.st_mtime_ns


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
