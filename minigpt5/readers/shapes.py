"""Vision-language models in their published shapes, without weights or hub: to count what a joined pipeline costs.

The numbers are those of the models' `config.json`.
"""

from __future__ import annotations

from accelerate import init_empty_weights
from transformers import PreTrainedModel, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

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
    with init_empty_weights(include_buffers=False):
        model = Qwen2_5_VLForConditionalGeneration(config)
    model.tie_weights()
    return model
