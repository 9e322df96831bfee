"""The seam towards the comprehension stack: all that the library asks of a `Blip2ForConditionalGeneration`."""

from __future__ import annotations

import torch
from transformers import Blip2ForConditionalGeneration, Cache


def bring_to_device(model: Blip2ForConditionalGeneration) -> None:
    """Fire the offload hook, if there is one, that only the model's own `forward` would fire."""
    hook = getattr(model, "_hf_hook", None)
    if hook is not None:
        hook.pre_forward(model)


def embed_prompt(
    model: Blip2ForConditionalGeneration, input_ids: torch.Tensor, pixel_values: torch.Tensor | None = None
) -> torch.Tensor:
    """Embeddings `(batch, length, hidden)` of ids, with the projected Q-Former features where image tokens stand.

    All pictures, `(pictures, 3, height, width)` in the order of their marks, are encoded in one call.
    """
    embeds = model.get_input_embeddings()(input_ids)
    if pixel_values is None:
        return embeds
    features = model.get_image_features(pixel_values.to(model.dtype), return_dict=True).pooler_output
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
    return model.language_model.base_model(
        inputs_embeds=inputs_embeds,
        attention_mask=attention_mask,
        position_ids=position_ids,
        past_key_values=past_key_values,
        use_cache=past_key_values is not None,
    ).last_hidden_state


def next_token_logits(model: Blip2ForConditionalGeneration, hidden: torch.Tensor) -> torch.Tensor:
    """Vocabulary logits of hidden states, in fp32."""
    return model.get_output_embeddings()(hidden).float()


def context_length(model: Blip2ForConditionalGeneration) -> int:
    """The number of positions that the language model has."""
    return model.config.text_config.max_position_embeddings
