"""The seam towards the comprehension stack: all that the library asks of a `Blip2ForConditionalGeneration`."""

from __future__ import annotations

import os
import sys

import torch
from torch import nn
from transformers import Blip2Config, Blip2ForConditionalGeneration, Cache, DynamicCache, PreTrainedConfig

from minigpt5.readers.lora import base_state, has_lora, load_lora, save_lora


class MiniGPT4ForConditionalGeneration(Blip2ForConditionalGeneration):
    """BLIP-2 with the published stack's two epsilons, saved whole even with an adapter attached.

    The norm behind the ViT has the epsilon `vision_config.post_layernorm_eps`, 1e-5 in the published stack (LAVIS'
    `ln_vision`). A configuration without it takes the ViT's own, 1e-6, as BLIP-2 of transformers does.
    """

    def __init__(self, config: Blip2Config):
        super().__init__(config)
        vision = config.vision_config
        self.vision_model.post_layernorm.eps = getattr(vision, "post_layernorm_eps", vision.layer_norm_eps)
        # Of most language models the hidden size, but OPT-350m's embeddings are narrower.
        width = self.get_input_embeddings().embedding_dim
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


class KeyValuePrefix(nn.Module):
    """Trainable keys and values that every layer of the language model attends to before the prompt.

    `states` is `(layers, 2, key-value heads, length, head width)`. They stand at no position: the prompt's positions
    stay what they were.
    """

    def __init__(self, config: PreTrainedConfig, length: int):
        super().__init__()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        self.states = nn.Parameter(0.02 * torch.randn(config.num_hidden_layers, 2, heads, length, width))

    @property
    def length(self) -> int:
        """Number of keys before the prompt."""
        return self.states.shape[3]

    def fill(self, cache: Cache, batch_size: int, dtype: torch.dtype) -> None:
        """Put the prefix into an empty cache."""
        for layer, (keys, values) in enumerate(self.states.to(dtype)):
            cache.update(keys.expand(batch_size, -1, -1, -1), values.expand(batch_size, -1, -1, -1), layer)


def image_features(model: Blip2ForConditionalGeneration, pixel_values: torch.Tensor) -> torch.Tensor:
    """Projected Q-Former features `(pictures, queries, hidden)` of pictures `(pictures, 3, height, width)`."""
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
    if pixel_values is None and features is None:
        return embeds
    if features is None:
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
    """The last layer's states `(batch, length, hidden)`, after the final norm; extends `past_key_values` in place.

    A prefix, where the model has one, comes in front of an empty cache.
    """
    prefix: KeyValuePrefix | None = getattr(model, "prefix", None)
    if prefix is not None:
        batch_size, length = inputs_embeds.shape[:2]
        if position_ids is None:
            position_ids = torch.arange(length, device=inputs_embeds.device).expand(batch_size, -1)
        past_key_values = DynamicCache() if past_key_values is None else past_key_values
        if past_key_values.get_seq_length() == 0:
            prefix.fill(past_key_values, batch_size, inputs_embeds.dtype)
        ahead = attention_mask.new_ones(batch_size, prefix.length)
        attention_mask = torch.cat([ahead, attention_mask], dim=1)
    return model.language_model.base_model(
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        position_ids=position_ids,
        past_key_values=past_key_values,
        use_cache=past_key_values is not None,
    ).last_hidden_state


def next_token_logits(model: Blip2ForConditionalGeneration, hidden: torch.Tensor) -> torch.Tensor:
    """Vocabulary logits of hidden states, in fp32, with what some language models do behind their head."""
    logits = model.get_output_embeddings()(hidden).float()
    config = model.config.text_config
    if hasattr(config, "logit_scale"):  # Cohere
        logits = logits * config.logit_scale
    if hasattr(config, "logits_scaling"):  # Granite
        logits = logits / config.logits_scaling
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    return logits if cap is None else cap * torch.tanh(logits / cap)


def context_length(model: Blip2ForConditionalGeneration) -> int:
    """The number of positions that the language model has; one without positions, such as Bloom, has no end."""
    return getattr(model.config.text_config, "max_position_embeddings", sys.maxsize)
