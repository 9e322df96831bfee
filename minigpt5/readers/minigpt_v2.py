"""MiniGPT-v2: four patches a token, and a word before each task (arXiv 2310.09478).

The ViT is frozen throughout. Stage 1 trains the connector and LoRA (rank 64, queries and values) on much weakly
labelled data, stage 2 on fine-grained data, stage 3 on instructions (section 3.1). Boxes are text, in hundredths of the
picture: `{<x1><y1><x2><y2>}` (section 2.2), see `minigpt5.utils.boxes`.
"""

from __future__ import annotations

from transformers import LlamaConfig

from minigpt5.readers.compose import System
from minigpt5.readers.composed import ComposedForConditionalGeneration
from minigpt5.readers.shapes import eva_clip_giant
from minigpt5.utils.checks import one_of

# `[INST] <Img>picture</Img> [task] instruction [/INST] reply</s>` (section 2.2).
CHAT_TEMPLATE = """\
{%- for message in messages -%}
    {%- if message.role == 'system' -%}
        {{ bos_token or '' }}
    {%- elif message.role == 'user' -%}
        {{ ('' if loop.previtem is defined and loop.previtem.role == 'system' else bos_token or '') + '[INST] ' }}
    {%- endif -%}
    {%- if message.content is string -%}
        {{ message.content }}
    {%- else -%}
        {%- for part in message.content -%}
            {{ '<Img><image></Img> ' if part.type == 'image' else part.text + ('' if loop.last else ' ') }}
        {%- endfor -%}
    {%- endif -%}
    {{ ' [/INST]' if message.role == 'user' else eos_token if message.role == 'assistant' else ' ' }}
{%- endfor -%}
"""

MINIGPT_V2 = System(
    "MiniGPT-v2",
    CHAT_TEMPLATE,
    {"connector": "neighbours", "vision_feature_layer": None, "vision_feature_select_strategy": "default"},
    fit="stretch",
)

# What a prompt begins with, behind its picture (section 2.2, table 1).
TASKS = ("vqa", "caption", "grounding", "refer", "identify", "detection")


def task_prompt(task: str, instruction: str) -> str:
    """An instruction with its task's word: "[refer] the red fox" asks for a box, "[identify] {<1>…}" for words.

    Raises:
        ValueError: for a task that is none of `TASKS`.
    """
    return f"[{one_of('task', task, TASKS)}] {instruction}"


def published_minigpt_v2() -> ComposedForConditionalGeneration:
    """MiniGPT-v2 with LLaMA-2-chat 7B, pictures of 448 pixels, in its published shape on the meta device."""
    return MINIGPT_V2.empty(LlamaConfig(max_position_embeddings=4096), eva_clip_giant(448))
