"""Training the vokens: both stages of MiniGPT-5 are this one model, with other loss weights and other parts frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from peft import LoraConfig, PeftModel, TrainableTokensConfig, get_peft_model
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import BatchFeature

from minigpt5.comprehension import embed_prompt, last_hidden_states, next_token_logits
from minigpt5.images import to_tensor
from minigpt5.losses import caption_loss, drop_for_guidance, latent_diffusion_loss, stratified_timesteps
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.processor import IGNORE_INDEX


@dataclass
class LossWeights:
    """Weights of the losses (arXiv 2310.02239, equations 8 and 9) and how the diffusion's is taken.

    Args:
        text: of L_text. Published: 0.01.
        diffusion: of L_LDM. Published: 1.
        caption: of L_CAP, 0.1 in the first stage and 0 in the second.
        guidance_dropout: share of pictures whose voken features become zeros. Published: 0.1.
        snr_gamma: of Min-SNR weighting, `None` for none. Published code: 5.
        mask_padding: whether the caption features that L_CAP aims at see no padding, as in the published code. The
            diffusion model itself is trained on features that do.
    """

    text: float = 0.01
    diffusion: float = 1.0
    caption: float = 0.1
    guidance_dropout: float = 0.1
    snr_gamma: float | None = 5.0
    mask_padding: bool = True


def add_voken_rows(pipe: MiniGPT5Pipeline) -> PeftModel:
    """Make the vokens' rows of embedding table and head trainable, and nothing else of the comprehension stack."""
    rows = list(pipe.processor.voken_ids)
    config = TrainableTokensConfig(target_modules=["embed_tokens", "lm_head"], token_indices=rows)
    return get_peft_model(pipe.comprehension, config)


def add_lora(
    pipe: MiniGPT5Pipeline,
    rank: int = 8,
    alpha: int = 16,
    dropout: float = 0.05,
    targets: Sequence[str] = ("q_proj", "v_proj"),
) -> PeftModel:
    """Make the vokens' rows and low-rank adapters of the language model trainable."""
    rows = list(pipe.processor.voken_ids)
    config = LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=rf".*language_model.*\.({'|'.join(targets)})",
        trainable_token_indices={"embed_tokens": rows, "lm_head": rows},
    )
    return get_peft_model(pipe.comprehension, config)


class VokenModel(nn.Module):
    """The losses of a batch of conversations, for whatever parts of a pipeline's components are left trainable."""

    def __init__(self, pipe: MiniGPT5Pipeline, weights: LossWeights):
        super().__init__()
        self.comprehension, self.mapper = pipe.comprehension, pipe.mapper
        self.unet, self.vae, self.text_encoder = pipe.unet, pipe.vae, pipe.text_encoder
        self.processor, self.tokenizer, self.scheduler = pipe.processor, pipe.tokenizer, pipe.scheduler
        self.weights = weights
        # The UNet's, as the VAE of Stable Diffusion 2.1-base names the 768 pixels of another model.
        self.image_size = pipe.unet.config.sample_size * pipe.vae_scale_factor
        for part in (self.unet, self.vae, self.text_encoder):
            part.requires_grad_(False)

    def train(self, mode: bool = True) -> VokenModel:
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in (self.unet, self.vae, self.text_encoder):
            part.eval()
        return self

    def voken_features(self, hidden: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """The states that predict the vokens of each block: `(blocks, n_vokens, hidden)`."""
        rows, starts = (input_ids == self.processor.voken_ids[0]).nonzero(as_tuple=True)
        steps = torch.arange(self.processor.n_vokens, device=hidden.device)
        return hidden[rows.unsqueeze(1), starts.unsqueeze(1) - 1 + steps]

    @torch.no_grad()
    def encode_captions(self, captions: Sequence[str]) -> torch.Tensor:
        """The diffusion's own text features `(captions, text_length, text_dim)`."""
        batch = self.tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=self.tokenizer.model_max_length,
            return_tensors="pt",
        ).to(self.text_encoder.device)
        mask = batch["attention_mask"] if self.weights.mask_padding else None
        return self.text_encoder(batch["input_ids"], attention_mask=mask).last_hidden_state

    @torch.no_grad()
    def encode_targets(self, targets: Sequence) -> torch.Tensor:
        """Scaled latents of the pictures to be painted, resized bilinearly as in the published code."""
        pixels = torch.stack([to_tensor(target, self.image_size, Image.Resampling.BILINEAR) for target in targets])
        pixels = pixels.to(self.vae.device, self.vae.dtype)
        return self.vae.encode(pixels).latent_dist.sample() * self.vae.config.scaling_factor

    def forward(
        self,
        batch: BatchFeature,
        captions: Sequence[str] | None = None,
        feature_loss: Callable[[torch.Tensor], torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Losses of a training batch of the processor.

        Args:
            captions: of the pictures to be painted, in their order; needed where the caption loss has weight.
            feature_loss: a further loss, of the voken features `(blocks, n_vokens, hidden)`.

        Returns:
            "loss" and its parts, those with weight 0 left out.
        """
        weights = self.weights
        device = batch["input_ids"].device
        embeds = embed_prompt(self.comprehension, batch["input_ids"], batch.get("pixel_values"))
        hidden = last_hidden_states(self.comprehension, embeds, batch["attention_mask"])
        logits = next_token_logits(self.comprehension, hidden[:, :-1])
        text = cross_entropy(logits.flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORE_INDEX)
        losses = {"loss": weights.text * text, "text": text}

        features = self.voken_features(hidden, batch["input_ids"])
        if len(features) == 0:
            return losses
        if feature_loss:
            losses["feature"] = feature_loss(features)
            losses["loss"] = losses["loss"] + losses["feature"]
        dropped = drop_for_guidance(len(features), weights.guidance_dropout, device)
        mapped = self.mapper(torch.where(dropped.view(-1, 1, 1), torch.zeros_like(features), features))
        if weights.caption:
            told = ["" if drop else caption for drop, caption in zip(dropped.tolist(), captions, strict=True)]
            losses["caption"] = caption_loss(mapped, self.encode_captions(told))
            losses["loss"] = losses["loss"] + weights.caption * losses["caption"]
        if weights.diffusion:
            latents = self.encode_targets(batch["targets"])
            timesteps = stratified_timesteps(len(latents), self.scheduler.config.num_train_timesteps, device)
            losses["ldm"] = latent_diffusion_loss(
                self.unet, self.scheduler, latents, mapped, timesteps, torch.randn_like(latents), weights.snr_gamma
            )
            losses["loss"] = losses["loss"] + weights.diffusion * losses["ldm"]
        return losses
