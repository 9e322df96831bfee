"""CogVLM: the tokens of pictures go through matrices of their own in each layer (arXiv 2311.03079).

The visual expert, queries to output and feed-forward, begins as a copy of the language model, which stays frozen: what
has no picture is answered as before, to the bit. All patches of a picture stand at one position (section 2.1). Stage 1
trains connector and experts on captions, stage 2 on boxes too (section 2.2); what aligns
it with instructions (section 2.3) is no recipe here.
"""

from __future__ import annotations

from transformers import CLIPVisionConfig, LlamaConfig

from minigpt5.readers.compose import System
from minigpt5.readers.composed import ComposedForConditionalGeneration

# Of the published code for conversations.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {{ ' Answer: ' if message.role == 'assistant' else '' }}
    {%- if message.content is string -%}
        {{ 'Question: ' + message.content if message.role == 'user' else message.content }}
    {%- else -%}
        {%- for part in message.content if part.type == 'image' -%}
            {{ '<image>' }}
        {%- endfor -%}
        {{ 'Question: ' if message.role == 'user' else '' }}
        {%- for part in message.content if part.type == 'text' -%}
            {{ part.text + ('' if loop.last else ' ') }}
        {%- endfor -%}
    {%- endif -%}
    {{ eos_token if message.role == 'assistant' else '\n' if message.role == 'system' else '' }}
{%- endfor -%}
{{ ' Answer:' if add_generation_prompt else '' }}
"""

COGVLM = System(
    "CogVLM",
    CHAT_TEMPLATE,
    {
        "connector": "gated_layers",
        "connector_options": {"width": 11_008},
        "framed_pictures": True,
        "visual_expert": True,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "default",
    },
    fit="stretch",
)


def published_cogvlm() -> ComposedForConditionalGeneration:
    """CogVLM-17B with Vicuna-7B 1.5 in its published shape on the meta device.

    Its EVA2-CLIP-E, without the last block, has its norms elsewhere in a block than CLIP's ViT, which stands for it.
    """
    vision = CLIPVisionConfig(
        hidden_size=1792,
        intermediate_size=15_360,
        num_hidden_layers=63,
        num_attention_heads=16,
        patch_size=14,
        image_size=490,
    )
    return COGVLM.empty(LlamaConfig(max_position_embeddings=2048), vision)
