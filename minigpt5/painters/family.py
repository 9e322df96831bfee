"""A painter that can be trained: what the families share."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from minigpt5.painters.base import Painter
from minigpt5.painters.schedules import NoiseSchedule, training_schedule


class TrainablePainter(Painter):
    """A painter whose latents, noise, loss and caption features are known.

    A family says what its denoiser is given (`inputs`) and what its answer means (`predict`), and where it differs from
    most how its latents are made.
    """

    # What `encode_prompt` of the pipeline returns; of a mask the ones count.
    encoded: ClassVar[tuple[str | None, ...]] = ("prompt_embeds",)
    # How a flow draws its times in training; see `FlowSchedule`.
    logit_normal: ClassVar[bool] = True

    @cached_property
    def schedule(self) -> NoiseSchedule:
        """The noise that the denoiser is trained on, whatever sampler the pipeline has.

        Raises:
            ValueError: if the scheduler's configuration tells none.
        """
        return training_schedule(self.pipeline.scheduler, self.logit_normal)

    @property
    def channels(self) -> int:
        """Channels of a latent."""
        return self.denoiser.config.in_channels

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape `(channels, height, width)` of the latents of a picture of so many pixels."""
        return self.channels, height // self.scale_factor, width // self.scale_factor

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """What the VAE makes of pictures, before anything random: mean and log variance where it has them.

        Args:
            pixels: `(pictures, 3, height, width)` in [-1, 1].
        """
        vae = self.pipeline.vae
        return vae.encode(pixels.to(vae.device, vae.dtype)).latent_dist.parameters

    def latents(self, moments: torch.Tensor, noise: torch.Tensor | None = None) -> torch.Tensor:
        """Latents as the denoiser knows them `(pictures, channels, height / f, width / f)`: shifted and scaled.

        Args:
            moments: by `encode`.
            noise: in the place of random noise in the VAE's distribution, of the latents' shape.
        """
        distribution = DiagonalGaussianDistribution(moments)
        return self.scaled(distribution.sample() if noise is None else distribution.mean + distribution.std * noise)

    def scaled(self, latents: torch.Tensor) -> torch.Tensor:
        """The VAE's latents with about mean 0 and variance 1."""
        config = self.pipeline.vae.config
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            mean, std = (latents.new_tensor(config[key]).view(1, -1, 1, 1) for key in ("latents_mean", "latents_std"))
            latents = (latents - mean) / std
        else:
            latents = latents - (config.get("shift_factor") or 0)
        return latents * (config.get("scaling_factor") or 1)

    def decode(self, latents: torch.Tensor, height: int, width: int) -> list[Image.Image]:
        """Pictures of latents in the shape that callbacks see them in, such as those of a step on the way.

        Args:
            height, width: of the pictures, in pixels.
        """
        vae = self.pipeline.vae
        config, latents = vae.config, latents / (vae.config.get("scaling_factor") or 1)
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            mean, std = (latents.new_tensor(config[key]).view(1, -1, 1, 1) for key in ("latents_mean", "latents_std"))
            latents = latents * std + mean
        else:
            latents = latents + (config.get("shift_factor") or 0)
        return self.pipeline.image_processor.postprocess(self._decoded(latents.to(vae.dtype)), output_type="pil")

    def _decoded(self, latents: torch.Tensor) -> torch.Tensor:
        """What the VAE makes of its own latents."""
        return self.pipeline.vae.decode(latents, return_dict=False)[0]

    def encode_captions(self, captions: Sequence[str], mask_padding: bool = False) -> dict[str, torch.Tensor]:
        """What the pipeline's own text encoders make of captions, by the names of `shapes`, and perhaps a `mask`.

        Args:
            mask_padding: see `StableDiffusionPainter`; the others always do as their pipelines do.

        Raises:
            ValueError: if the pipeline has no text encoder.
        """
        self.require_text_encoder()
        given = {
            "prompt": list(captions),
            "prompt_2": None,
            "prompt_3": None,
            "device": self.pipeline._execution_device,
            "do_classifier_free_guidance": False,
            "complex_human_instruction": self.default("complex_human_instruction"),
            "max_sequence_length": self.sequence_length,
        }
        known = inspect.signature(self.pipeline.encode_prompt).parameters
        outputs = self.pipeline.encode_prompt(**{name: value for name, value in given.items() if name in known})
        return {name: value for name, value in zip(self.encoded, outputs, strict=True) if name and value is not None}

    @property
    def text_length(self) -> int:
        """Number of features that the pipeline's own text encoders make of a caption."""
        return self.sequence_length

    @property
    def sequence_length(self) -> int:
        """Tokens of a caption: as many as the call takes, or the tokenizer where that is fewer."""
        parts = self.pipeline.components.items()
        lengths = [part.model_max_length for name, part in parts if name.startswith("tokenizer") and part is not None]
        return min([*lengths[-1:], self.default("max_sequence_length") or 77])

    def require_text_encoder(self) -> None:
        """See that captions can be encoded.

        Raises:
            ValueError: if the pipeline was made without its text encoder or tokenizer.
        """
        for kind in ("text_encoder", "tokenizer"):
            if not any(part is not None for name, part in self.pipeline.components.items() if name.startswith(kind)):
                raise ValueError(f"captions have features only with the painter's own {kind}, which is missing here")

    def predict(self, noisy: torch.Tensor, timestep: torch.Tensor, conditioning: dict[str, torch.Tensor]) -> Any:
        """The denoiser's answer to noised latents, of their shape.

        Args:
            timestep: as the scheduler counts `(pictures,)`.
        """
        raise NotImplementedError

    def loss(
        self,
        latents: torch.Tensor,
        conditioning: dict[str, torch.Tensor],
        snr_gamma: float | None = None,
        *,
        times: torch.Tensor | None = None,
        noise: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """L_LDM (arXiv 2310.02239, equation 6): the denoiser's error on noised latents, given the conditioning.

        Args:
            latents: `(pictures, channels, height, width)`, by `latents`.
            conditioning: one row a picture, of a connector or by `encode_captions`.
            snr_gamma: of Min-SNR weighting; see `NoiseSchedule.weights`.
            times, noise: in the place of random ones.
        """
        schedule = self.schedule
        if times is None:
            tokens = latents.shape[-2:].numel() // self.patch_size**2
            times = schedule.draw(len(latents), latents.device, tokens)
        noise = torch.randn_like(latents) if noise is None else noise
        noisy = schedule.noised(latents, noise, times).to(self.denoiser.dtype)
        predicted = self.predict(noisy, schedule.told(times), conditioning)
        error = (predicted.float() - schedule.target(latents, noise, times).float()).square().flatten(1).mean(1)
        return (error * schedule.weights(times, snr_gamma)).mean()

    def inputs(self, conditioning: dict[str, torch.Tensor]) -> dict[str, Any]:
        """The denoiser's arguments that the conditioning goes into."""
        return {"encoder_hidden_states": conditioning["prompt_embeds"].to(self.denoiser.dtype)}


def mask_of(conditioning: dict[str, torch.Tensor]) -> torch.Tensor:
    """Which features count `(pictures, length)`: those of a caption that are no padding, and all of a connector's."""
    if "mask" in conditioning:
        return conditioning["mask"]
    features = conditioning["prompt_embeds"]
    return torch.ones(features.shape[:2], dtype=torch.long, device=features.device)
