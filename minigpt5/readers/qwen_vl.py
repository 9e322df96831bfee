"""Qwen-VL: one layer of cross-attention makes 256 tokens of any picture, and boxes are text (arXiv 2308.12966).

Stage 1 trains encoder and connector, stage 2 everything, stage 3, on instructions, all but the encoder (section 3).
The published weights come with code of their own, which is never run here; those of Qwen2-VL open with transformers.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import CLIPVisionConfig, Qwen2Config

from minigpt5.readers.compose import System
from minigpt5.readers.composed import ComposedForConditionalGeneration
from minigpt5.utils.boxes import inside

# ChatML, with pictures between `<img>` and `</img>` (section 3.3, and appendix B).
CHAT_TEMPLATE = """\
{%- if messages[0].role != 'system' -%}
    {{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
{%- endif -%}
{%- for message in messages -%}
    {{ '<|im_start|>' + message.role + '\n' }}
    {%- if message.content is string -%}
        {{ message.content }}
    {%- else -%}
        {%- for part in message.content -%}
            {{ '<img><image></img>\n' if part.type == 'image' else part.text }}
        {%- endfor -%}
    {%- endif -%}
    {{ '<|im_end|>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<|im_start|>assistant\n' }}
{%- endif -%}
"""

QWEN_VL = System(
    "Qwen-VL",
    CHAT_TEMPLATE,
    {
        "connector": "resampler",
        "connector_options": {"queries": 256, "heads": 32},
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
    },
    special_tokens=("<|im_start|>", "<|im_end|>"),
    fit="stretch",
)

# Boxes are told in thousandths of the picture.
GRID = 1000


def format_box(box: Sequence[float], phrase: str | None = None) -> str:
    """A box in shares of the picture as Qwen-VL writes it, behind what it is of, if that is said (section 2.2).

    Args:
        box: left, top, right, bottom; what is outside is cut off.
    """
    x1, y1, x2, y2 = (round(GRID * inside(value)) for value in box)
    written = f"<box>({x1},{y1}),({x2},{y2})</box>"
    return written if phrase is None else f"<ref>{phrase}</ref>{written}"


def published_qwen_vl() -> ComposedForConditionalGeneration:
    """Qwen-VL in its published shape on the meta device.

    Qwen-7B has the layers of Qwen2 with a key and a value for each head; the encoder is OpenCLIP's ViT-bigG/14.
    """
    text = Qwen2Config(
        vocab_size=151_936,
        hidden_size=4096,
        intermediate_size=11_008,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=32,
        max_position_embeddings=8192,
    )
    vision = CLIPVisionConfig(
        hidden_size=1664,
        intermediate_size=8192,
        num_hidden_layers=48,
        num_attention_heads=16,
        patch_size=14,
        image_size=448,
    )
    return QWEN_VL.empty(text, vision)
