"""SPHINX: weights, tasks and what several encoders see, mixed (arXiv 2311.07575).

CLIP's ViT, a ConvNeXt and DINOv2, frozen, are joined by channel; BLIP-2's Q-Former adds tokens of the whole (section
3.3). SPHINX-1k reads a picture of 448 pixels as five of 224: the whole and its quarters (section 3.4). Stage 1 trains
connector and language model on captions together with text alone, stage 2 on instructions of all tasks. Between the
two, the language models that real and synthetic captions made are mixed (section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from transformers import ConvNextConfig, Dinov2Config, LlamaConfig

from minigpt5.readers.compose import System
from minigpt5.readers.composed import ComposedForConditionalGeneration
from minigpt5.readers.shapes import blip2_qformer, clip_large, eva_clip_giant
from minigpt5.utils.checks import real_number
from minigpt5.utils.integrity import few

# LLaMA2-Accessory's conversation, pictures first.
CHAT_TEMPLATE = """\
{%- if messages[0].role != 'system' -%}
    {{ "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, \
detailed, and polite answers to the human's questions.\n\n" }}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{ '### Human: ' }}
    {%- elif message.role == 'assistant' -%}
        {{ '### Assistant: ' }}
    {%- endif -%}
    {%- if message.content is string -%}
        {{ message.content }}
    {%- else -%}
        {%- for part in message.content if part.type == 'image' -%}
            {{ '<image>' }}
        {%- endfor -%}
        {%- for part in message.content if part.type == 'text' -%}
            {{ part.text + ('' if loop.last else ' ') }}
        {%- endfor -%}
    {%- endif -%}
    {{ eos_token if message.role == 'assistant' else '\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '### Assistant:' }}
{%- endif -%}
"""

_SETTINGS = {
    "connector": "mixed",
    "framed_pictures": True,
    "vision_feature_layer": None,
    "vision_feature_select_strategy": "full",
}
SPHINX = System("SPHINX", CHAT_TEMPLATE, _SETTINGS, encoders=4, fit="pad")
SPHINX_1K = System("SPHINX-1k", CHAT_TEMPLATE, _SETTINGS, encoders=4, sub_pictures=True)

# By which CLIP's encoders and DINOv2 want their pictures normalized.
CLIP_NORM = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}
IMAGENET_NORM = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}


def mix_weights(
    one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor], beta: float
) -> dict[str, torch.Tensor]:
    """β·a + (1 - β)·b of two models' tensors, computed in fp32 (section 3.1, equation 1).

    Args:
        one, other: state dictionaries of the same model.
        beta: the share of the first.

    Raises:
        TypeError, ValueError: for a share that is none from 0 to 1, or tensors of other names or shapes.
    """
    real_number("beta", beta, 0, 1)
    other_names = one.keys() ^ other.keys()
    others = sorted(other_names or (name for name in one if one[name].shape != other[name].shape))
    if others:
        raise ValueError(f"only weights of one model can be mixed; {few(others)} are not the same in both")
    return {
        name: torch.lerp(other[name].float(), value.float(), beta).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in one.items()
    }


def published_sphinx() -> ComposedForConditionalGeneration:
    """SPHINX with LLaMA-2 13B in its published shape on the meta device."""
    text = LlamaConfig(
        hidden_size=5120,
        intermediate_size=13_824,
        num_hidden_layers=40,
        num_attention_heads=40,
        max_position_embeddings=4096,
    )
    clip, eva = clip_large(224), eva_clip_giant(224)
    # ConvNeXt-XXL of OpenCLIP and DINOv2's ViT-g/14.
    convnext = ConvNextConfig(depths=[3, 4, 30, 3], hidden_sizes=[384, 768, 1536, 3072], image_size=256)
    dinov2 = Dinov2Config(
        hidden_size=1536,
        num_hidden_layers=40,
        num_attention_heads=24,
        use_swiglu_ffn=True,
        image_size=518,
        patch_size=14,
    )
    for config, norm in ((clip, CLIP_NORM), (convnext, CLIP_NORM), (dinov2, IMAGENET_NORM), (eva, CLIP_NORM)):
        for name, value in norm.items():
            setattr(config, name, value)
    qformer = {"qformer_config": blip2_qformer(), "num_query_tokens": 32}
    return SPHINX.empty(text, clip, convnext, dinov2, eva, **qformer)
