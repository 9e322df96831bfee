"""The losses of vokens: both stages of MiniGPT-5 are this one model, with other weights and other parts frozen."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import send_to_device
from diffusers.utils import make_image_grid
from PIL import Image
from torch import nn
from torch.nn.functional import pad
from transformers import BatchFeature

from minigpt5.data.features import FeatureCache, content_key, part_key
from minigpt5.painters import PARTS, trainable
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.training.losses import caption_loss, drop_for_guidance, text_loss
from minigpt5.utils.images import to_tensor
from minigpt5.utils.processes import pick_device, share_of_batch
from minigpt5.utils.settings import Settings, setting


@dataclass
class LossWeights(Settings):
    """Weights of the losses (arXiv 2310.02239, equations 8 and 9) and how the diffusion's is taken."""

    text: float = setting(0.01, least=0, help="of L_text; published: 0.01", rejudge=True)
    diffusion: float = setting(1.0, least=0, help="of L_LDM; published: 1", rejudge=True)
    caption: float = setting(
        0.1, least=0, help="of L_CAP; published: 0.1 in the first stage, 0 in the second", rejudge=True
    )
    guidance_dropout: float = setting(
        0.1, least=0, most=1, help="share of pictures whose voken features become zeros; published: 0.1"
    )
    snr_gamma: float | None = setting(
        5.0, above=0, help="of Min-SNR weighting of L_LDM, null for none; published code: 5", rejudge=True
    )
    mask_padding: bool = setting(
        True,
        help="whether the caption features that L_CAP aims at see no padding, as in the published code; the diffusion "
        "model itself is trained on features that do",
        rejudge=True,
    )


@dataclass(frozen=True)
class Draws:
    """What a training step draws at random for its pictures; what is `None` is drawn.

    Args:
        dropped: which of them train the unconditional half, their voken features made zeros: bool `(pictures,)`.
        times: how far they are noised, as the painter's schedule counts: `(pictures,)`.
        noise: that they are noised with, of the latents' shape.
        vae_noise: that is drawn within the VAE's distribution, of the latents' shape.
    """

    dropped: torch.Tensor | None = None
    times: torch.Tensor | None = None
    noise: torch.Tensor | None = None
    vae_noise: torch.Tensor | None = None


class Coach(nn.Module, ABC):
    """Knows more of a data set than its captions tell: a further loss in training, and an examiner.

    Its parameters train with the vokens, and are no part of the result.
    """

    @abstractmethod
    def describe(self, pictures: Sequence[Image.Image]) -> tuple[list[str], Any]:
        """Captions of the pictures to be painted, in their order, and what `loss` is to know of them.

        It is called where batches are made ready, which may be another process.
        """

    @abstractmethod
    def loss(self, features: torch.Tensor, told: Any) -> torch.Tensor:
        """A loss of the voken features `(pictures, n_vokens, hidden)`, weighted."""

    @abstractmethod
    def examine(self, pipe: MiniGPT5Pipeline) -> dict[str, float]:
        """Figures of an evaluation, the higher the better; the first tells the best checkpoint by default."""


class VokenModel(nn.Module):
    """The losses of a batch of conversations, for whatever parts of a pipeline's components are left trainable."""

    def __init__(self, pipe: MiniGPT5Pipeline, weights: LossWeights, coach: Coach | None = None):
        super().__init__()
        self.comprehension, self.mapper = pipe.comprehension, pipe.mapper
        self.reader, self.painter, self.weights = pipe.reader, trainable(pipe.picture.painter), weights
        self._caches: dict[str, FeatureCache] = {}
        self.image_size = self.painter.default_size[0]
        for name in PARTS:
            if isinstance(part := getattr(pipe, name), nn.Module):
                self.add_module(name, part.requires_grad_(False))
        if weights.diffusion or weights.caption:
            # What does not fit is found before the first step.
            pipe.null_conditioning()
        if weights.diffusion:
            _ = self.painter.schedule
        if weights.caption:
            self.painter.require_text_encoder()
        self.coach = coach

    def _frozen(self) -> list[nn.Module]:
        """The painter's parts; where no caption is scored the text encoders may be missing."""
        return [part for name, part in self.named_children() if name in PARTS]

    def train(self, mode: bool = True) -> VokenModel:
        """Frozen parts stay in evaluation mode."""
        super().train(mode)
        for part in (*self._frozen(), self.comprehension):
            part.eval()
        self.reader.language_model.train(mode)
        return self

    def parameter_groups(self, learning_rate: float, mapper_rate: float) -> list[dict]:
        """What trains as AdamW groups: the mapper at its own rate, so many times the others'."""
        mapper = [parameter for parameter in self.mapper.parameters() if parameter.requires_grad]
        own = set(mapper)
        others = [p for p in self.parameters() if p.requires_grad and p not in own]
        return [
            {"params": others, "lr": learning_rate},
            {"params": mapper, "lr": mapper_rate * learning_rate},
        ]

    def voken_features(self, hidden: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
        """The states that predict the vokens of each block: `(blocks, n_vokens, hidden)`."""
        rows, starts = (input_ids == self.reader.voken_ids[0]).nonzero(as_tuple=True)
        steps = torch.arange(self.reader.n_vokens, device=hidden.device)
        return hidden[rows.unsqueeze(1), starts.unsqueeze(1) - 1 + steps]

    def cache_features(self, folder: Path) -> None:
        """Keep what the frozen parts make of pictures and captions in `folder`, and fetch what is there.

        Raises:
            ValueError: if one of these parts is being trained.
        """
        keys = {"moments": part_key(self.vae)}
        if self.reader.picture_parts:
            keys["pictures"] = part_key(*self.reader.picture_parts)
        encoders = [part for name, part in self.named_children() if name.startswith("text_encoder")]
        if encoders:
            tokenizers = [p for name, p in self.painter.pipeline.components.items() if name.startswith("tokenizer")]
            settings = {
                "mask_padding": self.weights.mask_padding,
                "length": self.mapper.config.text_length,
                "tokenizers": [content_key(str(sorted(p.get_vocab().items()))) for p in tokenizers if p is not None],
            }
            keys |= dict.fromkeys(self._caption_features(), part_key(*encoders, **settings))
        self._caches = {kind: FeatureCache(folder, kind, key) for kind, key in keys.items()}

    def _fetch(self, kind: str, keys: Sequence[str], compute: Callable[[list[int]], torch.Tensor]) -> torch.Tensor:
        """What is cached of the inputs with these keys, and of those at the places given to `compute` what it makes."""
        # They outlast this run and its mixed precision: they are in that of the parts.
        with torch.autocast(self.mapper.device.type, enabled=False):
            return self._caches[kind].fetch(keys, compute).to(self.mapper.device)

    def prepare(self, batch: BatchFeature) -> BatchFeature:
        """Make a `training_batch` ready for `forward`, where batches are made ready: on the CPU, and perhaps ahead.

        `targets`, the pictures to be painted, become a tensor `(pictures, 3, size, size)` in [-1, 1], squeezed to the
        painter's size bilinearly, as in the published code. Where features are cached, `picture_keys` and `target_keys`
        tell the pictures from others.
        """
        targets = [to_tensor(target, self.image_size, Image.Resampling.BILINEAR) for target in batch["targets"]]
        batch["targets"] = torch.stack(targets) if targets else torch.empty(0, 3, self.image_size, self.image_size)
        for kind, name, keys in (("pictures", "pixel_values", "picture_keys"), ("moments", "targets", "target_keys")):
            if kind in self._caches and name in batch:
                batch[keys] = [content_key(picture) for picture in batch[name]]
        return batch

    @torch.no_grad()
    def read_pictures(self, batch: BatchFeature) -> torch.Tensor | None:
        """What the reader's frozen parts make of a batch's pictures: `(pictures, queries, hidden)`.

        `None` where there are none, or where the reader does not tell a picture's features from others'.
        """
        if "pixel_values" not in batch or not self.reader.picture_parts:
            return None
        pixels, features = batch["pixel_values"], cast(Any, self.reader).picture_features
        if "pictures" not in self._caches:
            return features({"pixel_values": pixels})
        return self._fetch("pictures", batch["picture_keys"], lambda at: features({"pixel_values": pixels[at]}))

    @torch.no_grad()
    def encode_captions(self, captions: Sequence[str]) -> dict[str, torch.Tensor]:
        """The painter's own text features, by its names, as many as the mapper makes; a `mask` where some are none.

        `prompt_embeds` is `(captions, text_length, text_dim)`, pooled vectors are `(captions, pooled_dim)`.
        """
        painter, length = self.painter, self.mapper.config.text_length
        computed: dict[tuple[int, ...], dict[str, torch.Tensor]] = {}

        def compute(name: str, places: list[int]) -> torch.Tensor:
            key = tuple(places)
            if key not in computed:
                features = painter.encode_captions([captions[place] for place in places], self.weights.mask_padding)
                computed[key] = _of_length(features, length)
            return computed[key][name]

        names = self._caption_features()
        if names[0] in self._caches:
            keys = [content_key(caption) for caption in captions]
            return {name: self._fetch(name, keys, partial(compute, name)) for name in names}
        # Those that are dropped for guidance are all the empty caption.
        first = [place for place, caption in enumerate(captions) if caption not in captions[:place]]
        different = [captions[place] for place in first]
        places = [different.index(caption) for caption in captions]
        return {name: compute(name, first)[places] for name in names}

    def _caption_features(self) -> list[str]:
        """What captions are encoded as; there is a mask where some have fewer features than the mapper makes."""
        masked = "mask" in self.painter.encoded or self.mapper.config.text_length > self.painter.text_length
        return [*self.painter.shapes(), *(["mask"] if masked else [])]

    @torch.no_grad()
    def encode_targets(self, batch: BatchFeature, vae_noise: torch.Tensor | None = None) -> torch.Tensor:
        """Scaled latents of the pictures to be painted.

        Args:
            batch: made ready by `prepare`.
            vae_noise: see `Draws`.
        """
        pixels, encode = batch["targets"], self.painter.encode
        if "moments" in self._caches:
            moments = self._fetch("moments", batch["target_keys"], lambda at: encode(pixels[at]))
        else:
            moments = encode(pixels)
        return self.painter.latents(moments, vae_noise)

    def forward(
        self,
        batch: BatchFeature,
        captions: Sequence[str] | None = None,
        told: Any = None,
        draws: Draws | None = None,
        weights: LossWeights | None = None,
    ) -> dict[str, torch.Tensor]:
        """Losses of a training batch of the reader.

        Args:
            batch: made ready by `prepare`.
            captions: of the pictures to be painted, in their order; needed where the caption loss has weight.
            told: what the coach's `describe` says of these pictures.
            draws: in the place of random ones, so that a step can be repeated anywhere.
            weights: of this step, in the place of the model's own; what has weight 0 there can have none here.

        Returns:
            "loss" and its parts, those with weight 0 left out. In training each is scaled so that the mean over the
            processes is the mean over all their tokens or pictures.

        Raises:
            TypeError: if the batch's targets are pictures still.
            ValueError: if there are draws for more or fewer pictures than the batch paints.
        """
        if not isinstance(batch["targets"], torch.Tensor):
            raise TypeError("the batch's targets are pictures still; make it ready with prepare(batch)")
        weights = weights or self.weights
        device = batch["input_ids"].device
        states = self.reader.prefill(batch, features=self.read_pictures(batch))
        text = text_loss(self.reader, states.last, batch["labels"], shared=self.training)
        features = self.voken_features(states.features, batch["input_ids"])
        # Every process asks for it, also one whose share has no picture to paint.
        share = share_of_batch(len(features)) if self.training else 1.0
        draws = draws or Draws()
        for name, drawn in vars(draws).items():
            if drawn is not None and len(drawn) != len(features):
                raise ValueError(f"draws.{name} is for {len(drawn)} picture(s), but the batch paints {len(features)}")
        losses = {"loss": weights.text * text, "text": text}
        if len(features) == 0:
            return losses
        if self.coach is not None and told is not None:
            losses["feature"] = share * self.coach.loss(features, told)
            losses["loss"] = losses["loss"] + losses["feature"]
        dropped = draws.dropped
        if dropped is None:
            dropped = drop_for_guidance(len(features), weights.guidance_dropout, device)
        mapped = self.mapper.conditioning(torch.where(dropped.view(-1, 1, 1), torch.zeros_like(features), features))
        if weights.caption:
            told = ["" if drop else caption for drop, caption in zip(dropped.tolist(), captions or (), strict=True)]
            losses["caption"] = share * caption_loss(mapped, self.encode_captions(told))
            losses["loss"] = losses["loss"] + weights.caption * losses["caption"]
        if weights.diffusion:
            latents = self.encode_targets(batch, draws.vae_noise)
            loss = self.painter.loss(latents, mapped, weights.snr_gamma, times=draws.times, noise=draws.noise)
            losses["ldm"] = share * loss
            losses["loss"] = losses["loss"] + weights.diffusion * losses["ldm"]
        return losses


def _of_length(features: dict[str, torch.Tensor], length: int) -> dict[str, torch.Tensor]:
    """Features cut or filled up to so many, with the mask of those that a caption has."""
    sequence = features["prompt_embeds"]
    missing = length - sequence.shape[1]
    mask = features.get("mask", torch.ones(sequence.shape[:2], device=sequence.device))
    return features | {"prompt_embeds": pad(sequence, (0, 0, 0, missing)), "mask": pad(mask, (0, missing))}


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
