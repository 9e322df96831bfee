"""Vision-language models, and parts that several share, in their published shapes: to count what they cost.

The numbers are those of the models' `config.json`. Models are on the meta device, without weights or hub.
"""

from __future__ import annotations

from typing import Any

from transformers import (
    Blip2VisionConfig,
    CLIPVisionConfig,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
    LlamaConfig,
    PreTrainedModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
)

from minigpt5.utils.meta import empty_weights

_VISION = {
    "depth": 32,
    "hidden_size": 1280,
    "intermediate_size": 3420,
    "num_heads": 16,
    "patch_size": 14,
    "window_size": 112,
    "fullatt_block_indexes": [7, 15, 23, 31],
}
_TEXT = {
    "max_position_embeddings": 128_000,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
}


def qwen2_5_vl(size: str) -> PreTrainedModel:
    """Qwen2.5-VL (arXiv 2502.13923), "3b" or "7b", on the meta device."""
    text = {
        "3b": {
            "vocab_size": 151_936,
            "hidden_size": 2048,
            "intermediate_size": 11_008,
            "num_hidden_layers": 36,
            "num_attention_heads": 16,
            "num_key_value_heads": 2,
        },
        "7b": {
            "vocab_size": 152_064,
            "hidden_size": 3584,
            "intermediate_size": 18_944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
    }[size]
    config = Qwen2_5_VLConfig(
        text_config=_TEXT | text,
        vision_config=_VISION | {"out_hidden_size": text["hidden_size"]},
        tie_word_embeddings=size == "3b",
    )
    with empty_weights():
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.tie_weights()
    return model


def clip_large(image_size: int) -> CLIPVisionConfig:
    """CLIP's ViT-L/14, of pictures of 224 or 336 pixels (openai/clip-vit-large-patch14)."""
    return CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        patch_size=14,
        image_size=image_size,
    )


def eva_clip_giant(image_size: int) -> Blip2VisionConfig:
    """EVA-CLIP's ViT-g/14 without its last block, as BLIP-2 has it (arXiv 2301.12597, section 4.1)."""
    config: Any = Blip2VisionConfig(
        hidden_size=1408,
        intermediate_size=6144,
        num_hidden_layers=39,
        num_attention_heads=16,
        patch_size=14,
        image_size=image_size,
        layer_norm_eps=1e-6,
        initializer_range=0.02,
    )
    config.post_layernorm_eps = 1e-5
    return config


def blip2_qformer() -> dict[str, Any]:
    """BLIP-2's Q-Former of that ViT (Salesforce/blip2-opt-2.7b)."""
    return {
        "hidden_size": 768,
        "encoder_hidden_size": 1408,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "cross_attention_frequency": 2,
    }


def instructblip() -> PreTrainedModel:
    """InstructBLIP with Vicuna-7B (arXiv 2305.06500; Salesforce/instructblip-vicuna-7b)."""
    config = InstructBlipConfig(
        vision_config=eva_clip_giant(224).to_diff_dict() | {"model_type": "instructblip_vision_model"},
        qformer_config=blip2_qformer() | {"vocab_size": 30_523},
        text_config=LlamaConfig(vocab_size=32_001).to_dict(),
        num_query_tokens=32,
    )
    with empty_weights():
        return InstructBlipForConditionalGeneration(config)
