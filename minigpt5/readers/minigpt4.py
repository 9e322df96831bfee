"""MiniGPT-4: BLIP-2 with another language model and MiniGPT-4's own prompt (arXiv 2304.10592)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from transformers import BatchFeature, Blip2Config, Blip2ForConditionalGeneration, Cache

from minigpt5.readers.cache import ReaderCache
from minigpt5.readers.generic import Reader, States, cache_argument
from minigpt5.readers.lora import base_state, has_lora, load_lora, save_lora
from minigpt5.readers.packing import pack
from minigpt5.readers.prefix import behind_prefix, prefix_of
from minigpt5.readers.processor import MiniGPT5Processor
from minigpt5.readers.prompts import Example, Message, Prompt


class MiniGPT4ForConditionalGeneration(Blip2ForConditionalGeneration):
    """BLIP-2 with the published stack's two epsilons, saved whole even with an adapter attached.

    The norm behind the ViT has the epsilon `vision_config.post_layernorm_eps`, 1e-5 in the published stack (LAVIS'
    `ln_vision`). A configuration without it takes the ViT's own, 1e-6, as BLIP-2 of transformers does.
    """

    # As any-to-any models of transformers tell it; a picture is said in vokens, which the pipeline paints.
    output_modalities = ("image", "text")

    def __init__(self, config: Blip2Config):
        super().__init__(config)
        vision: Any = config.vision_config
        self.vision_model.post_layernorm.eps = getattr(vision, "post_layernorm_eps", vision.layer_norm_eps)
        # Of most language models the hidden size, but OPT-350m's embeddings are narrower.
        table: Any = self.get_input_embeddings()
        width = table.embedding_dim
        if width != self.language_projection.out_features:
            self.language_projection = nn.Linear(self.language_projection.in_features, width)

    def save_pretrained(self, save_directory: str | os.PathLike, **kwargs) -> None:
        """Write the model and, beside it in the same folder, its LoRA adapter if it has one.

        transformers would write the adapter alone; a folder that holds both loads as it was saved.
        """
        if has_lora(self):
            kwargs["state_dict"] = base_state(self)
        super().save_pretrained(save_directory, **kwargs)
        if has_lora(self):
            save_lora(self, save_directory)

    def load_adapter(self, folder: str | os.PathLike, **kwargs) -> None:
        """Attach the LoRA adapter that lies in a folder; `from_pretrained` calls it for one beside the weights."""
        load_lora(self, folder)
        self.requires_grad_(False)


def image_features(model: Any, pixel_values: torch.Tensor) -> torch.Tensor:
    """BLIP-2's projected Q-Former features `(pictures, queries, hidden)` of `(pictures, 3, height, width)`."""
    return model.get_image_features(pixel_values.to(model.dtype), return_dict=True).pooler_output


def embed_prompt(
    model: Blip2ForConditionalGeneration,
    input_ids: torch.Tensor,
    pixel_values: torch.Tensor | None = None,
    features: torch.Tensor | None = None,
) -> torch.Tensor:
    """Embeddings `(batch, length, hidden)` of ids, with picture features where image tokens stand.

    Args:
        pixel_values: all pictures in the order of their marks, which are encoded in one call.
        features: what `image_features` made of them, where that is known already.
    """
    embeds = model.get_input_embeddings()(input_ids)
    if features is None:
        if pixel_values is None:
            return embeds
        features = image_features(model, pixel_values)
    here = (input_ids == model.config.image_token_id).unsqueeze(-1)
    return embeds.masked_scatter(here, features.to(embeds.dtype))


def last_hidden_states(
    model: Blip2ForConditionalGeneration,
    inputs_embeds: torch.Tensor,
    attention_mask: torch.Tensor,
    position_ids: torch.Tensor | None = None,
    past_key_values: Cache | None = None,
) -> torch.Tensor:
    """The last layer's states `(batch, length, hidden)`, after the final norm; extends `past_key_values` in place."""
    past_key_values, attention_mask = behind_prefix(model, past_key_values, attention_mask)
    if position_ids is None:
        # Said, because a prefix stands at no position.
        position_ids = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device).expand(len(inputs_embeds), -1)
    body = model.language_model.base_model
    return body(
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        position_ids=position_ids,
        use_cache=past_key_values is not None,
        **{cache_argument(body): past_key_values},
    ).last_hidden_state


class MiniGPT4Reader(Reader):
    """MiniGPT-4, or any BLIP-2 around a decoder-only language model, with a `MiniGPT5Processor`."""

    processor: MiniGPT5Processor

    @property
    def body(self) -> nn.Module:
        """The language model without its head."""
        return self.model.language_model.base_model

    @property
    def _takes(self) -> set[str]:
        return {"pixel_values"}

    @property
    def stop_strings(self) -> tuple[str, ...]:
        """The mark of the next turn."""
        return ("###",)

    @property
    def eos_token_ids(self) -> set[int]:
        """The end of the text."""
        return {self.tokenizer.eos_token_id}

    def encode(self, prompts: Sequence[Prompt], images: Sequence[Any] | None = None) -> BatchFeature:
        """See `Reader.encode`; turns that a string has written out already are taken as they are."""
        return self.processor(list(prompts), images)

    def training_batch(self, items: Sequence[list[Message] | Example], subword_dropout: float = 0.0) -> BatchFeature:
        """See `MiniGPT5Processor.training_batch`."""
        return self.processor.training_batch(items, subword_dropout)

    @property
    def picture_parts(self) -> list[nn.Module | torch.Tensor]:
        """Everything from the pixels to the language model's width."""
        model = self.model
        return [model.vision_model, model.qformer, model.language_projection, model.query_tokens]

    def picture_features(self, inputs: BatchFeature) -> torch.Tensor:
        """What the Q-Former makes of the pictures, projected: `(pictures, queries, hidden)`."""
        return image_features(self.model, inputs["pixel_values"])

    def prefill(
        self, inputs: BatchFeature, cache: ReaderCache | None = None, features: torch.Tensor | None = None
    ) -> States:
        """See `Reader.prefill`. Without a cache a Llama, as Vicuna is, reads the batch packed."""
        if features is None and "pixel_values" in inputs:
            features = self.picture_features(inputs)
        embeds = embed_prompt(self.model, inputs["input_ids"], features=features)
        if cache is None and self._packs:
            packing = pack(inputs["attention_mask"])
            ids = packing.pack(inputs["input_ids"].unsqueeze(-1)).squeeze(-1)
            states = self._forward(ids, None, packing.positions, None, {}, packing.pack(embeds))
            last = packing.unpack(states.last)
            return States(last, last if states.features is states.last else packing.unpack(states.features))
        return self.extend(inputs["input_ids"], inputs["attention_mask"], cache, embeds)

    @property
    def _packs(self) -> bool:
        """Whether positions alone keep conversations apart: to flash attention they do where there is one row only."""
        knows = self.config.model_type == "llama" and self.config._attn_implementation in ("eager", "sdpa")
        return knows and prefix_of(self.model) is None

    def extend(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor | None,
        cache: ReaderCache | None,
        embeds: torch.Tensor | None = None,
    ) -> States:
        """See `Reader.extend`."""
        return super().extend(ids, mask, cache, embed_prompt(self.model, ids) if embeds is None else embeds)
