"""Training the vokens: both stages of MiniGPT-5 are this one model, with other loss weights and other parts frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import send_to_device
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from diffusers.utils import make_image_grid
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import BatchFeature

from minigpt5.data.features import FeatureCache, content_key, part_key
from minigpt5.data.mixture import check_mix
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.published.shapes import random_pipeline
from minigpt5.readers.minigpt4 import embed_prompt, image_features, last_hidden_states, next_token_logits
from minigpt5.readers.processor import IGNORE_INDEX
from minigpt5.training.fit import FitConfig
from minigpt5.training.losses import caption_loss, drop_for_guidance, latent_diffusion_loss, stratified_timesteps
from minigpt5.utils.images import to_tensor
from minigpt5.utils.processes import pick_device, share_of_batch
from minigpt5.vokens.adapters import LoraSettings, save_adapter


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


@dataclass(kw_only=True)
class VokenConfig(FitConfig):
    """Settings that both stages share.

    Args:
        data: folder with the data sets, each in a folder by its name: cc3m, vist, mmdialog, chat.
        layouts: another layout for one of them, as {cc3m: cc3m-shards}.
        model: pipeline to start from: a folder, a repository, or a shipped name.
        dtype: of the frozen weights; what trains is float32.
        out: folder for checkpoints and the result.
        mix: conversations a batch by task; batch_size is their sum.
        max_bad_share: share of missing or broken pictures that stops the run.
        lora: adapters of the language model, which the published first stage leaves alone.
        weights: of the losses.
        mapper_rate: the mapper's learning rate over the vokens'.
        caption_only_steps: steps before the diffusion loss comes in.
        gradient_checkpointing: compute activations twice to keep fewer.
        cache_features: folder to keep the frozen parts' features in.
        coached: the data are StoryWorld's, whose ground truth helps and judges.
        naming_weight: of the coach's naming head.
        judge: the judge's folder, in place of the shipped one.
        judged: validation captions or stories of an evaluation.
        fuse: also write the whole pipeline, with all that was trained folded in.
    """

    data: Path
    layouts: dict = field(default_factory=dict)
    model: Path
    dtype: str = "float32"
    out: Path
    mix: dict
    max_bad_share: float = 0.01
    lora: LoraSettings | None = None
    weights: LossWeights = field(default_factory=LossWeights)
    mapper_rate: float = 1.0
    caption_only_steps: int = 0
    gradient_checkpointing: bool = False
    cache_features: Path | None = None
    coached: bool = False
    naming_weight: float = 0.0
    judge: Path | None = None
    judged: int = 50
    fuse: bool = False

    def __post_init__(self):
        check_mix(self.mix, self.batch_size)


class VokenModel(nn.Module):
    """The losses of a batch of conversations, for whatever parts of a pipeline's components are left trainable."""

    def __init__(self, pipe: MiniGPT5Pipeline, weights: LossWeights):
        super().__init__()
        self.comprehension, self.mapper = pipe.comprehension, pipe.mapper
        self.unet, self.vae, self.text_encoder = pipe.unet, pipe.vae, pipe.text_encoder
        self.processor, self.tokenizer, self.scheduler = pipe.processor, pipe.tokenizer, pipe.scheduler
        self.weights = weights
        self._caches: dict[str, FeatureCache] = {}
        # The UNet's, as the VAE of Stable Diffusion 2.1-base names the 768 pixels of another model.
        self.image_size = pipe.unet.config.sample_size * pipe.vae_scale_factor
        for part in self._frozen():
            part.requires_grad_(False)

    def _frozen(self) -> list[nn.Module]:
        """The diffusion model's parts; where no caption is scored the text encoder may be missing."""
        return [part for part in (self.unet, self.vae, self.text_encoder) if part is not None]

    def train(self, mode: bool = True) -> VokenModel:
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        reader = (self.comprehension.vision_model, self.comprehension.qformer)
        for part in (*self._frozen(), *reader):
            part.eval()
        return self

    def parameter_groups(self, config: VokenConfig) -> list[dict]:
        """What trains as AdamW groups: the mapper at its own rate."""
        mapper = [parameter for parameter in self.mapper.parameters() if parameter.requires_grad]
        own = {id(parameter) for parameter in mapper}
        others = [p for p in self.parameters() if p.requires_grad and id(p) not in own]
        return [
            {"params": others, "lr": config.learning_rate},
            {"params": mapper, "lr": config.mapper_rate * config.learning_rate},
        ]

    def voken_features(self, hidden: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """The states that predict the vokens of each block: `(blocks, n_vokens, hidden)`."""
        rows, starts = (input_ids == self.processor.voken_ids[0]).nonzero(as_tuple=True)
        steps = torch.arange(self.processor.n_vokens, device=hidden.device)
        return hidden[rows.unsqueeze(1), starts.unsqueeze(1) - 1 + steps]

    def cache_features(self, folder: Path) -> None:
        """Keep what the frozen parts make of pictures and captions in `folder`, and fetch what is there.

        Raises:
            ValueError: if one of these parts is being trained.
        """
        model = self.comprehension
        reader = (model.vision_model, model.qformer, model.language_projection, model.query_tokens)
        keys = {"pictures": part_key(*reader), "moments": part_key(self.vae)}
        if self.text_encoder is not None:
            keys["captions"] = part_key(self.text_encoder, mask_padding=self.weights.mask_padding)
        self._caches = {kind: FeatureCache(folder, kind, key) for kind, key in keys.items()}

    def _cached(self, kind: str, inputs: torch.Tensor, compute: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """What a frozen part makes of a batch of inputs, each different one taken once."""
        keys = [content_key(row) for row in inputs.cpu()]
        if kind in self._caches:
            return self._caches[kind].fetch(keys, lambda missing: compute(inputs[missing])).to(inputs.device)
        different = list(dict.fromkeys(keys))
        if len(different) == len(keys):
            return compute(inputs)
        computed = compute(inputs[[keys.index(key) for key in different]])
        return computed[[different.index(key) for key in keys]]

    @torch.no_grad()
    def read_pictures(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Projected Q-Former features `(pictures, queries, hidden)`."""
        return self._cached("pictures", pixel_values, lambda pixels: image_features(self.comprehension, pixels))

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
        both = torch.stack([batch["input_ids"], batch["attention_mask"]], dim=1)

        def compute(both: torch.Tensor) -> torch.Tensor:
            mask = both[:, 1] if self.weights.mask_padding else None
            return self.text_encoder(both[:, 0], attention_mask=mask).last_hidden_state

        return self._cached("captions", both, compute)

    @torch.no_grad()
    def encode_targets(self, targets: Sequence) -> torch.Tensor:
        """Scaled latents of the pictures to be painted, resized bilinearly as in the published code."""
        pixels = torch.stack([to_tensor(target, self.image_size, Image.Resampling.BILINEAR) for target in targets])
        pixels = pixels.to(self.vae.device, self.vae.dtype)
        moments = self._cached("moments", pixels, lambda pixels: self.vae.encode(pixels).latent_dist.parameters)
        return DiagonalGaussianDistribution(moments).sample() * self.vae.config.scaling_factor

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
            "loss" and its parts, those with weight 0 left out. In training each is scaled so that the mean over the
            processes is the mean over all their tokens or pictures.
        """
        weights = self.weights
        device = batch["input_ids"].device
        pixels = batch.get("pixel_values")
        features = None if pixels is None else self.read_pictures(pixels)
        embeds = embed_prompt(self.comprehension, batch["input_ids"], features=features)
        hidden = last_hidden_states(self.comprehension, embeds, batch["attention_mask"])
        logits = next_token_logits(self.comprehension, hidden[:, :-1])
        labels = batch["labels"][:, 1:]
        text = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)
        features = self.voken_features(hidden, batch["input_ids"])
        if self.training:
            # Every process asks for both, also one whose share has no picture to paint.
            text = text * share_of_batch(int((labels != IGNORE_INDEX).sum()))
            share = share_of_batch(len(features))
        else:
            share = 1.0
        losses = {"loss": weights.text * text, "text": text}
        if len(features) == 0:
            return losses
        if feature_loss:
            losses["feature"] = share * feature_loss(features)
            losses["loss"] = losses["loss"] + losses["feature"]
        dropped = drop_for_guidance(len(features), weights.guidance_dropout, device)
        mapped = self.mapper(torch.where(dropped.view(-1, 1, 1), torch.zeros_like(features), features))
        if weights.caption:
            told = ["" if drop else caption for drop, caption in zip(dropped.tolist(), captions, strict=True)]
            losses["caption"] = share * caption_loss(mapped, self.encode_captions(told))
            losses["loss"] = losses["loss"] + weights.caption * losses["caption"]
        if weights.diffusion:
            latents = self.encode_targets(batch["targets"])
            timesteps = stratified_timesteps(len(latents), self.scheduler.config.num_train_timesteps, device)
            losses["ldm"] = share * latent_diffusion_loss(
                self.unet, self.scheduler, latents, mapped, timesteps, torch.randn_like(latents), weights.snr_gamma
            )
            losses["loss"] = losses["loss"] + weights.diffusion * losses["ldm"]
        return losses


def open_for_training(
    model: Path, dtype: str = "float32", gradient_checkpointing: bool = False, dry_run: bool = False
) -> MiniGPT5Pipeline:
    """Open a pipeline on this process's device, its mapper trainable and in fp32.

    Args:
        model: folder, repository or shipped name; for a dry run also `minigpt5-7b`, the published shapes alone.
        dtype: of the frozen weights.
        gradient_checkpointing: LLM and UNet compute their activations twice to keep fewer.
    """
    if dry_run and str(model) == "minigpt5-7b":
        pipe = random_pipeline(dtype=getattr(torch, dtype), device="meta")
    else:
        pipe = MiniGPT5Pipeline.from_pretrained(str(model), dtype=getattr(torch, dtype)).to(pick_device())
    pipe.set_progress_bar_config(disable=True)
    pipe.mapper.float().requires_grad_(True)
    if gradient_checkpointing:
        pipe.comprehension.language_model.gradient_checkpointing_enable()
        pipe.unet.enable_gradient_checkpointing()
    return pipe


def save_trained(pipe: MiniGPT5Pipeline, config: VokenConfig) -> None:
    """Write the adapter, and where asked the whole pipeline in fp16."""
    save_adapter(pipe, config.out / "adapter", str(config.model))
    if config.fuse:
        pipe.fuse_adapter()
        pipe.to(torch.float16).save_pretrained(config.out / "model")


def validation_loss(
    losses: Callable[[Any, int], dict[str, torch.Tensor]], batches: Callable[[int], Any], count: int, step: int
) -> float:
    """The mean loss of the first `count` batches, with the same noise every time."""
    total = 0.0
    for index in range(count):
        batch = send_to_device(batches(index), pick_device())
        torch.manual_seed(index)
        total += losses(batch, step)["loss"].item()
    return total / count


@torch.no_grad()
def sample_grid(pipe: MiniGPT5Pipeline, prompts: Sequence) -> Image.Image:
    """One picture a prompt, side by side, from the same noise every time."""
    noise = [torch.Generator().manual_seed(i) for i in range(len(prompts))]
    pictures = pipe(list(prompts), image_mode="always", max_images=1, max_new_tokens=48, generator=noise).images
    return make_image_grid([images[0] for images in pictures], rows=1, cols=len(pictures))
