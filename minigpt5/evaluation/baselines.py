"""What MiniGPT-5 is compared with: small pipelines that are called as `MiniGPT5Pipeline` is and answer in kind.

Each is built around the parts of a `MiniGPT5Pipeline`, trained elsewhere, and trains nothing itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from minigpt5.output import MiniGPT5PipelineOutput, Segment
from minigpt5.painters import build_painter, take_apart, trainable
from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.readers.prompts import IMAGE_MARK, Example, Prompt, as_batch
from minigpt5.vokens.decoding import DecodingConfig
from minigpt5.vokens.mapper import VokenMapper

_DECODING = {field.name for field in fields(DecodingConfig)}
_OPTIONS = set(inspect.signature(MiniGPT5Pipeline.__call__).parameters) - {"self", "prompt", "images", "return_dict"}


def last_text(prompt: Prompt) -> str:
    """The last piece of text in a prompt, a string or chat messages; of an example its caption.

    Raises:
        ValueError: if there is no text in it.
    """
    texts = prompt.split(IMAGE_MARK) if isinstance(prompt, str) else []
    if isinstance(prompt, Example):
        texts = [prompt.caption or ""]
    for message in prompt if isinstance(prompt, list) else []:
        content = message["content"]
        texts += [content] if isinstance(content, str) else [part.get("text", "") for part in content]
    for text in reversed(texts):
        if text.strip():
            return text.strip()
    raise ValueError("the prompt holds no text, so there is no caption to paint; end it with one")


class ZeroShotDiffusion:
    """A caption's picture by the diffusion model alone, through its own text encoder.

    The caption is the last text of the prompt; what stands before it is not read. With another `unet` this is the
    baseline "fine-tuned SD" (arXiv 2310.02239, table 2).

    Args:
        pipe: its text encoder, VAE and scheduler are used, and its steps and guidance are the defaults.
        unet: in the place of the pipeline's own.

    Raises:
        ValueError: if the pipeline was saved without its text encoder and tokenizer.
    """

    def __init__(self, pipe: MiniGPT5Pipeline, unet: UNet2DConditionModel | None = None):
        _require_text_encoder(pipe)
        self.pipe = pipe
        parts, settings = take_apart(pipe.painter)
        self.painter: Any = build_painter(
            pipe.config["painter_class"], parts | ({} if unet is None else {"unet": unet}), settings
        )

    def paint(
        self,
        captions: Sequence[str],
        *,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        **options: Any,
    ) -> list[Any]:
        """One picture for each caption; further `options` are those of the painter's call."""
        if not captions:
            return []
        config = self.pipe.config
        self.painter.set_progress_bar_config(**getattr(self.pipe, "_progress_bar_config", {}))
        pictures = self.painter(
            list(captions),
            num_inference_steps=config["num_inference_steps"] if num_inference_steps is None else num_inference_steps,
            guidance_scale=config["guidance_scale"] if guidance_scale is None else guidance_scale,
            **options,
        ).images
        return list(pictures)

    def __call__(self, prompt: Prompt | Sequence[Prompt], images: Any = None, **options: Any) -> MiniGPT5PipelineOutput:
        """One picture a prompt, and no text. The options of decoding have nothing to decide here."""
        prompts, _ = as_batch(prompt, images)
        _, painting = _split(options)
        pictures = self.paint([last_text(prompt) for prompt in prompts], **painting)
        return _output([[picture] for picture in pictures])


class TwoStage:
    """The comprehension stack tells what comes next, and the diffusion model paints what it told.

    The picture knows the sentence alone, not what went before (arXiv 2310.02239, table 4).

    Args:
        pipe: its comprehension stack, fine-tuned for text, speaks.
        painter: paints; by default the pipeline's own diffusion model.
    """

    def __init__(self, pipe: MiniGPT5Pipeline, painter: ZeroShotDiffusion | None = None):
        self.pipe, self.painter = pipe, painter or ZeroShotDiffusion(pipe)

    def __call__(self, prompt: Prompt | Sequence[Prompt], images: Any = None, **options: Any) -> MiniGPT5PipelineOutput:
        """Text and one picture a prompt; `image_mode="never"` leaves the pictures out."""
        texts, decoding, painting = _speak(self.pipe, prompt, images, options)
        if decoding.image_mode == "never" or decoding.max_images == 0:
            return _output([[text] for text in texts])
        pictures = self.painter.paint(texts, **painting)
        return _output([[text, picture] for text, picture in zip(texts, pictures, strict=True)])


class GILL(MiniGPT5Pipeline):
    """MiniGPT-5's parts used as GILL uses them (Koh et al., arXiv 2305.17216).

    Its mapper is trained with the caption loss alone. Guidance leads away from the text encoder's features of the
    empty caption, because the mapper was not trained to make them. When to paint is the language model's choice of
    `[IMG0]`; GILL's classifier chooses between painting and retrieving a picture, and there is nothing to retrieve.
    """

    @classmethod
    def around(cls, pipe: MiniGPT5Pipeline, mapper: VokenMapper | None = None) -> GILL:
        """A pipeline of the same parts, with another mapper.

        Raises:
            ValueError: if the pipeline was saved without its text encoder and tokenizer.
        """
        _require_text_encoder(pipe)
        parts = pipe.components | ({"mapper": mapper} if mapper is not None else {})
        settings = ("guidance_scale", "num_inference_steps", "painter_class", "painter_settings")
        own = cls(**parts, **{name: pipe.config[name] for name in settings})
        own.set_progress_bar_config(**getattr(pipe, "_progress_bar_config", {}))
        return own

    @torch.no_grad()
    def null_conditioning(self) -> dict[str, torch.Tensor]:
        """The text encoder's features of the empty caption, one row of each tensor."""
        painter = trainable(self.picture.painter)
        features = painter.encode_captions([""])
        return {name: features[name].to(painter.denoiser.dtype) for name in painter.shapes()}


class Divter:
    """Text first, then a description of a picture in words, which the diffusion model paints.

    The comprehension stack is fine-tuned on replies in which a picture is written as a mark and its description; it
    paints where it says the mark (Divter, Sun et al., ACL 2022, section 4). Divter reads pictures as descriptions
    too; here the comprehension stack sees them.

    Args:
        pipe: its comprehension stack speaks.
        painter: paints; by default the pipeline's own diffusion model.
        mark: what stands before a description in the replies it was trained on.
    """

    def __init__(self, pipe: MiniGPT5Pipeline, painter: ZeroShotDiffusion | None = None, mark: str = "[DST]"):
        self.pipe, self.painter, self.mark = pipe, painter or ZeroShotDiffusion(pipe), mark

    def __call__(self, prompt: Prompt | Sequence[Prompt], images: Any = None, **options: Any) -> MiniGPT5PipelineOutput:
        """Text, and a picture where a description is given.

        With `image_mode="always"` a reply without a description is its own description; `"never"` leaves all
        descriptions unpainted.
        """
        said, decoding, painting = _speak(self.pipe, prompt, images, options)
        parted = [reply.partition(self.mark) for reply in said]
        texts = [text.strip() for text, _, _ in parted]
        told = [description.strip() for _, _, description in parted]
        if decoding.image_mode == "always":
            told = [description or text for text, description in zip(texts, told, strict=True)]
        elif decoding.image_mode == "never" or decoding.max_images == 0:
            told = [""] * len(told)
        rows = [i for i, description in enumerate(told) if description]
        if isinstance(painting.get("generator"), (list, tuple)):
            painting["generator"] = [painting["generator"][i] for i in rows]
        painted = dict(zip(rows, self.painter.paint([told[i] for i in rows], **painting), strict=True))
        return _output([[text, painted[i]] if i in painted else [text] for i, text in enumerate(texts)])


def _require_text_encoder(pipe: MiniGPT5Pipeline) -> None:
    if pipe.text_encoder is None or pipe.tokenizer is None:
        raise ValueError(
            "this baseline needs the diffusion model's own text encoder and tokenizer, which the pipeline was saved "
            "without; give them as text_encoder= and tokenizer= to from_pretrained"
        )


def _split(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of decoding, and those of painting; a generator is for both."""
    for name in options:
        if name not in _OPTIONS:
            raise TypeError(f"{name!r} is no option of the pipeline's call")
    decoding = {name: value for name, value in options.items() if name in _DECODING}
    return decoding, {name: value for name, value in options.items() if name not in _DECODING}


def _speak(
    pipe: MiniGPT5Pipeline, prompt: Prompt | Sequence[Prompt], images: Any, options: dict[str, Any]
) -> tuple[list[str], DecodingConfig, dict[str, Any]]:
    """Replies in text alone, the settings of decoding, and the options that are left for painting."""
    decoding, painting = _split(options)
    speaking = decoding | {"image_mode": "never", "generator": painting.get("generator")}
    return pipe(prompt, images, **speaking).text, pipe.decoding_config(**decoding), painting


def _output(replies: list[list[Segment]]) -> MiniGPT5PipelineOutput:
    segments = [[part for part in reply if not isinstance(part, str) or part] for reply in replies]
    return MiniGPT5PipelineOutput(
        text=[" ".join(part for part in reply if isinstance(part, str)) for reply in segments],
        images=[[part for part in reply if not isinstance(part, str)] for reply in segments],
        segments=segments,
    )
