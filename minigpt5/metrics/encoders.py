"""CLIP models as encoders of pictures and texts to unit vectors, from clip-anytorch, transformers or open_clip."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import normalize

from minigpt5.metrics.weights import MissingWeights, find_file, from_hub, require
from minigpt5.utils.images import Picture, to_rgb, trim_strip
from minigpt5.utils.integrity import load_whole

BATCH_SIZE = 64


class ClipEncoder(nn.Module):
    """A CLIP of OpenAI's release, by clip-anytorch (Radford et al. 2021).

    Args:
        model: the name of a model, such as "ViT-L/14" (published figures of CC3M and VIST) or "ViT-B/32" (of MMDialog),
            which must lie in `~/.cache/clip`; or the path of a file of weights.

    Raises:
        MissingWeights: if the file is not there.
    """

    def __init__(self, model: str | Path = "ViT-L/14"):
        super().__init__()
        self.clip = _import_clip()
        file = _openai_file(self.clip, model)
        with warnings.catch_warnings():
            # clip-anytorch reads the released files by torch.jit.load.
            warnings.simplefilter("ignore", FutureWarning)
            self.model, self.preprocess = self.clip.load(str(file), device="cpu")
        self.model.requires_grad_(False)

    @torch.no_grad()
    def encode_pictures(self, pictures: Sequence[Picture]) -> torch.Tensor:
        """Unit vectors `(pictures, width)` of PIL pictures, arrays or tensors."""
        pictures = [trim_strip(to_rgb(picture)) for picture in pictures]
        return self._in_batches(self._picture_features, pictures)

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Unit vectors `(texts, width)`; what is longer than the model's context is cut."""
        return self._in_batches(self._text_features, list(texts))

    def _in_batches(self, features, items: list) -> torch.Tensor:
        batches = [features(items[start : start + BATCH_SIZE]) for start in range(0, len(items), BATCH_SIZE)]
        if not batches:
            raise ValueError("there is nothing to encode: the list is empty")
        return normalize(torch.cat(batches).float(), dim=-1)

    @property
    def _weight(self) -> torch.Tensor:
        return next(self.model.parameters())

    def _picture_features(self, pictures: list) -> torch.Tensor:
        pixels = torch.stack([self.preprocess(picture) for picture in pictures])
        return self.model.encode_image(pixels.to(self._weight))

    def _text_features(self, texts: list[str]) -> torch.Tensor:
        ids = self.clip.tokenize(texts, context_length=self.model.context_length, truncate=True)
        return self.model.encode_text(ids.to(self._weight.device))


class OpenClipEncoder(ClipEncoder):
    """A CLIP of open_clip.

    Args:
        architecture: a name that `open_clip.list_models()` has, such as "ViT-H-14".
        weights: a file of weights for it.
        source: where the file comes from, for the error.

    Raises:
        MissingWeights: if there is no such file.
        ModuleNotFoundError: if open_clip is not installed.
    """

    def __init__(self, architecture: str, weights: str | Path, source: str = "the publisher of the model"):
        nn.Module.__init__(self)
        open_clip = require("open_clip")
        file = find_file(f"open_clip {architecture}", weights, Path(), source)
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(architecture)
        state = torch.load(file, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state.get("state_dict", state))
        self.model.requires_grad_(False).eval()
        self.tokenize = open_clip.get_tokenizer(architecture)

    def _text_features(self, texts: list[str]) -> torch.Tensor:
        return self.model.encode_text(self.tokenize(texts).to(self._weight.device))


class TransformersClipEncoder(ClipEncoder):
    """A CLIP of transformers.

    Args:
        model: a folder, or the name of a repository in the hub's local cache, such as "openai/clip-vit-base-patch32".
        processor: the same for its processor, where it lies elsewhere.

    Raises:
        MissingWeights: if either is in neither place.
    """

    def __init__(self, model: str | Path, processor: str | Path | None = None):
        nn.Module.__init__(self)
        from transformers import AutoModel, AutoProcessor

        self.model = from_hub("CLIP", partial(load_whole, AutoModel), model).eval()
        self.model.requires_grad_(False)
        read = partial(AutoProcessor.from_pretrained, trust_remote_code=False)
        self.processor = from_hub("CLIP's processor", read, processor or model)

    def _picture_features(self, pictures: list) -> torch.Tensor:
        pixels = self.processor(images=pictures, return_tensors="pt")["pixel_values"]
        return self.model.get_image_features(pixel_values=pixels.to(self._weight)).pooler_output

    def _text_features(self, texts: list[str]) -> torch.Tensor:
        length = self.model.config.text_config.max_position_embeddings
        ids = self.processor(text=texts, padding=True, truncation=True, max_length=length, return_tensors="pt")
        return self.model.get_text_features(**ids.to(self._weight.device)).pooler_output


def load_clip_encoder(encoder: str | Path | nn.Module = "ViT-L/14") -> nn.Module:
    """A CLIP encoder by its name.

    Args:
        encoder: a name of clip-anytorch or a file of weights (`ClipEncoder`); a folder or a repository such as
            "openai/clip-vit-base-patch32" (`TransformersClipEncoder`); or an encoder, which is given back.

    Raises:
        MissingWeights: if its weights are not on this machine.
    """
    if isinstance(encoder, nn.Module):
        return encoder
    if Path(encoder).is_file() or Path(encoder).suffix == ".pt" or str(encoder) in _import_clip().available_models():
        return ClipEncoder(encoder)
    return TransformersClipEncoder(encoder)


def _import_clip():
    with warnings.catch_warnings():
        # Of pkg_resources, which clip-anytorch imports.
        warnings.simplefilter("ignore")
        import clip
    return clip


def _openai_file(clip, model: str | Path) -> Path:
    url = clip.clip._MODELS.get(str(model))
    if url:
        cached = Path.home() / ".cache" / "clip" / url.rsplit("/", 1)[-1]
        return find_file(f"CLIP {model}", None, cached, url)
    if not Path(model).is_file():
        raise MissingWeights(
            f"CLIP: {model} is neither a file nor one of {', '.join(clip.available_models())}. Name a file of weights"
        )
    return Path(model)
