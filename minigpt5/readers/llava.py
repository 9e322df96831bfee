"""LLaVA: patches of CLIP's ViT through one linear layer or two (arXiv 2304.08485; 1.5: arXiv 2310.03744).

Stage 1 trains the connector alone, stage 2 the connector and the language model (section 4.2 of both). The published
weights of 1.5 open as `LlavaForConditionalGeneration` of transformers.
"""

from __future__ import annotations

from transformers import LlamaConfig

from minigpt5.readers.compose import System
from minigpt5.readers.composed import ComposedForConditionalGeneration
from minigpt5.readers.shapes import clip_large
from minigpt5.utils.checks import one_of

# `USER: … ASSISTANT: …`, pictures first and on a line of their own: "vicuna_v1" of the published code without its
# system text, as transformers asks those weights. Who wants it says it in a system message.
CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
        {{ 'USER: ' }}
    {%- elif message.role == 'assistant' -%}
        {{ 'ASSISTANT: ' }}
    {%- endif -%}
    {%- if message.content is string -%}
        {{ message.content }}
    {%- else -%}
        {%- for part in message.content if part.type == 'image' -%}
            {{ '<image>\n' }}
        {%- endfor -%}
        {%- for part in message.content if part.type == 'text' -%}
            {{ part.text + ('' if loop.last else ' ') }}
        {%- endfor -%}
    {%- endif -%}
    {{ eos_token if message.role == 'assistant' else ' ' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ 'ASSISTANT:' }}
{%- endif -%}
"""

# Of both the states before the ViT's last layer, without the class token's.
_STATES = {"vision_feature_layer": -2, "vision_feature_select_strategy": "default"}
LLAVA = System("LLaVA", CHAT_TEMPLATE, {"connector": "linear", **_STATES})
LLAVA_15 = System("LLaVA-1.5", CHAT_TEMPLATE, {"connector": "two_layers", **_STATES}, fit="pad")


def published_llava(version: str = "1.5") -> ComposedForConditionalGeneration:
    """LLaVA-7B, "1" or "1.5", in its published shape on the meta device.

    Raises:
        ValueError: for another version.
    """
    one_of("version", version, ("1", "1.5"))
    text = LlamaConfig(vocab_size=32_064 if version == "1.5" else 32_003, max_position_embeddings=4096)
    return LLAVA_15.empty(text, clip_large(336)) if version == "1.5" else LLAVA.empty(text, clip_large(224))
