"""Training the vokens: both stages of MiniGPT-5 are this one model, with other loss weights and other parts frozen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.utils import send_to_device
from diffusers.utils import make_image_grid
from PIL import Image
from torch import nn
from torch.nn.functional import cross_entropy, pad
from transformers import BatchFeature

from minigpt5.data.features import FeatureCache, content_key, part_key
from minigpt5.data.mixture import CAPTIONED_TASKS, TEXT_TASKS
from minigpt5.painters import PARTS, painter_of, trainable
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.published.joined import SHAPES
from minigpt5.readers.processor import IGNORE_INDEX
from minigpt5.training.losses import caption_loss, drop_for_guidance
from minigpt5.training.mixture import MixtureConfig
from minigpt5.training.results import save_result
from minigpt5.utils.images import to_tensor
from minigpt5.utils.processes import pick_device, share_of_batch
from minigpt5.utils.programs import opening
from minigpt5.utils.settings import DTYPES, Settings, setting
from minigpt5.vokens.adapter_folder import save_adapter
from minigpt5.vokens.adapters import LoraSettings


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


@dataclass(kw_only=True)
class VokenConfig(MixtureConfig):
    """The vokens, in both stages."""

    model: Path = setting(help="pipeline to start from: a folder, a repository, or a shipped name")
    out: Path = setting(help="folder for checkpoints and the result", passing=True)
    dtype: str = setting("float32", choices=DTYPES, help="of the frozen weights; what trains is float32")
    lora: LoraSettings | None = setting(
        None,
        help="adapters of the language model, which the published first stage leaves alone",
        fixed="what trains depends on it",
    )
    weights: LossWeights = setting(factory=LossWeights, help="of the losses")
    mapper_rate: float = setting(1.0, above=0, help="the mapper's learning rate over the vokens'")
    caption_only_steps: int = setting(0, least=0, help="steps before the diffusion loss comes in")
    gradient_checkpointing: bool = setting(False, help="compute activations twice to keep fewer")
    cache_features: Path | None = setting(None, help="folder to keep the frozen parts' features in")
    coached: bool = setting(
        False, help="the data are StoryWorld's, whose ground truth helps and judges", fixed="what trains depends on it"
    )
    naming_weight: float = setting(0.0, least=0, help="of the coach's naming head")
    judge: Path | None = setting(None, help="the judge's folder, in place of the shipped one", rejudge=True)
    judged: int = setting(50, least=1, help="validation captions or stories of an evaluation", rejudge=True)
    fuse: bool = setting(False, help="also write the whole pipeline, with all that was trained folded in")

    def __post_init__(self):
        super().__post_init__()
        if self.best not in (None, "minus_loss") and not self.coached:
            raise ValueError(f"best is {self.best!r}, which StoryWorld's judge tells only where coached is true")
        untold = [task for task in self.mix if task not in (*TEXT_TASKS, *CAPTIONED_TASKS)]
        if self.weights.caption and untold and not self.coached:
            told = " and ".join(CAPTIONED_TASKS)
            raise ValueError(
                f"weights.caption is {self.weights.caption}, but {untold[0]} has no caption of what it paints; "
                f"only {told} have"
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


class VokenModel(nn.Module):
    """The losses of a batch of conversations, for whatever parts of a pipeline's components are left trainable."""

    def __init__(self, pipe: MiniGPT5Pipeline, weights: LossWeights):
        super().__init__()
        self.comprehension, self.mapper = pipe.comprehension, pipe.mapper
        self.reader, self.painter, self.weights = pipe.reader, trainable(painter_of(pipe.painter)), weights
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

    def _cached(self, kind: str, keys: Sequence[str], compute: Callable[[list[int]], torch.Tensor]) -> torch.Tensor:
        """What a frozen part makes of the inputs with these keys, each different one taken once.

        Args:
            compute: the features of the inputs at these places.
        """
        if kind in self._caches:
            return self._caches[kind].fetch(keys, compute).to(self.mapper.device)
        different = list(dict.fromkeys(keys))
        computed = compute([keys.index(key) for key in different])
        return computed if len(different) == len(keys) else computed[[different.index(key) for key in keys]]

    @torch.no_grad()
    def read_pictures(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the reader's frozen parts make of pictures, one entry a picture: `(pictures, queries, hidden)`."""
        return self._cached(
            "pictures",
            _content_keys(pixel_values),
            lambda places: cast(Any, self.reader).picture_features({"pixel_values": pixel_values[places]}),
        )

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

        keys = [content_key(caption) for caption in captions]
        return {name: self._cached(name, keys, partial(compute, name)) for name in self._caption_features()}

    def _caption_features(self) -> list[str]:
        """What captions are encoded as; there is a mask where some have fewer features than the mapper makes."""
        masked = "mask" in self.painter.encoded or self.mapper.config.text_length > self.painter.text_length
        return [*self.painter.shapes(), *(["mask"] if masked else [])]

    @torch.no_grad()
    def encode_targets(self, targets: Sequence, vae_noise: torch.Tensor | None = None) -> torch.Tensor:
        """Scaled latents of the pictures to be painted, resized bilinearly as in the published code.

        Args:
            vae_noise: see `Draws`.
        """
        pixels = torch.stack([to_tensor(target, self.image_size, Image.Resampling.BILINEAR) for target in targets])
        encode = self.painter.encode
        moments = self._cached("moments", _content_keys(pixels), lambda places: encode(pixels[places]))
        return self.painter.latents(moments, vae_noise)

    def forward(
        self,
        batch: BatchFeature,
        captions: Sequence[str] | None = None,
        feature_loss: Callable[[torch.Tensor], torch.Tensor] | None = None,
        draws: Draws | None = None,
    ) -> dict[str, torch.Tensor]:
        """Losses of a training batch of the processor.

        Args:
            captions: of the pictures to be painted, in their order; needed where the caption loss has weight.
            feature_loss: a further loss, of the voken features `(blocks, n_vokens, hidden)`.
            draws: in the place of random ones, so that a step can be repeated anywhere.

        Returns:
            "loss" and its parts, those with weight 0 left out. In training each is scaled so that the mean over the
            processes is the mean over all their tokens or pictures.

        Raises:
            ValueError: if there are draws for more or fewer pictures than the batch paints.
        """
        weights = self.weights
        device = batch["input_ids"].device
        pixels = batch.get("pixel_values") if self.reader.picture_parts else None
        seen = None if pixels is None else self.read_pictures(pixels)
        states = self.reader.prefill(batch, features=seen)
        logits = self.reader.logits(states.last[:, :-1])
        labels = batch["labels"][:, 1:]
        text = cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORE_INDEX)
        features = self.voken_features(states.features, batch["input_ids"])
        if self.training:
            # Every process asks for both, also one whose share has no picture to paint.
            text = text * share_of_batch(int((labels != IGNORE_INDEX).sum()))
            share = share_of_batch(len(features))
        else:
            share = 1.0
        draws = draws or Draws()
        for name, drawn in vars(draws).items():
            if drawn is not None and len(drawn) != len(features):
                raise ValueError(f"draws.{name} is for {len(drawn)} picture(s), but the batch paints {len(features)}")
        losses = {"loss": weights.text * text, "text": text}
        if len(features) == 0:
            return losses
        if feature_loss:
            losses["feature"] = share * feature_loss(features)
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
            latents = self.encode_targets(batch["targets"], draws.vae_noise)
            loss = self.painter.loss(latents, mapped, weights.snr_gamma, times=draws.times, noise=draws.noise)
            losses["ldm"] = share * loss
            losses["loss"] = losses["loss"] + weights.diffusion * losses["ldm"]
        return losses


def _content_keys(pixels: torch.Tensor) -> list[str]:
    return [content_key(row) for row in pixels.cpu()]


def _of_length(features: dict[str, torch.Tensor], length: int) -> dict[str, torch.Tensor]:
    """Features cut or filled up to so many, with the mask of those that a caption has."""
    sequence = features["prompt_embeds"]
    missing = length - sequence.shape[1]
    mask = features.get("mask", torch.ones(sequence.shape[:2], device=sequence.device))
    return features | {"prompt_embeds": pad(sequence, (0, 0, 0, missing)), "mask": pad(mask, (0, missing))}


def open_for_training(config: VokenConfig) -> MiniGPT5Pipeline:
    """Open a pipeline on this process's device, its mapper trainable and in fp32.

    For a dry run names of `SHAPES` stand for published shapes alone; these have no text encoder.

    Raises:
        ProgramError: if the pipeline cannot be opened.
        ValueError: if it has no text encoder to take the caption loss with.
    """
    dtype, caption = getattr(torch, config.dtype), config.weights.caption
    if config.dry_run and str(config.model) in SHAPES:
        pipe = SHAPES[str(config.model)](dtype)
        config.weights = replace(config.weights, caption=0.0)
    else:
        with opening(f"the model {config.model}"):
            pipe = MiniGPT5Pipeline.from_pretrained(str(config.model), dtype=dtype).to(pick_device())
        if caption and pipe.text_encoder is None:
            raise ValueError(f"weights.caption is {caption}, but {config.model} has no text encoder: set it to 0")
    pipe.set_progress_bar_config(disable=True)
    pipe.mapper.float().requires_grad_(True)
    if config.gradient_checkpointing:
        pipe.reader.language_model.gradient_checkpointing_enable()
        painter_of(pipe.painter).denoiser.enable_gradient_checkpointing()
    return pipe


def save_trained(pipe: MiniGPT5Pipeline, config: VokenConfig) -> None:
    """Write the adapter, and where asked the whole pipeline in fp16."""
    save_adapter(pipe, config.out / "adapter", str(config.model))
    if config.fuse:
        pipe.fuse_adapter()
        save_result(pipe, config.out / "model")


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
