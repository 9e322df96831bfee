"""TinyGPT-V: a small language model, Phi-2, behind MiniGPT-4's encoder, Q-Former and projection (arXiv 2312.16862).

A second projection leads from the width of MiniGPT-4's language model to Phi's. That gradients of so small a model do
not vanish, norms are added: of queries and keys, and behind attention; they and those before each layer are trained
(section 3.1). Stage 1 trains projections and norms, stages 2 to 4 LoRA too: on the pairs again, on instructions, and on
MiniGPT-v2's tasks with its words (section 3.2).

As in the published code, the norm before a layer is Phi's own LayerNorm and only the one behind attention an RMS norm.
"""

from __future__ import annotations

from transformers import PhiConfig

from minigpt5.readers.compose import System
from minigpt5.readers.composed import ComposedForConditionalGeneration
from minigpt5.readers.shapes import blip2_qformer, eva_clip_giant

TINYGPT_V = System(
    "TinyGPT-V",
    None,
    {
        "connector": "two_projections",
        # Between the projections: the width of MiniGPT-4's language model.
        "connector_options": {"width": 4096},
        "post_norm": True,
        "vision_feature_layer": None,
        "vision_feature_select_strategy": "full",
    },
    text_settings={"qk_layernorm": True},
)


def published_tinygpt_v() -> ComposedForConditionalGeneration:
    """TinyGPT-V in its published shape on the meta device."""
    text = PhiConfig(
        vocab_size=51_200,
        hidden_size=2560,
        intermediate_size=10_240,
        num_hidden_layers=32,
        num_attention_heads=32,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0, "partial_rotary_factor": 0.4},
    )
    qformer = {"qformer_config": blip2_qformer(), "num_query_tokens": 32}
    return TINYGPT_V.empty(text, eva_clip_giant(224), lm_head_bias=True, **qformer)
