"""Another reader and another painter of the miniature's size, to be trained from nothing and joined with its parts.

The reader has the shape of Qwen2.5-VL, the painter that of Stable Diffusion 3. Sizes live here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import AddedToken
from transformers import (
    AutoTokenizer,
    CLIPTextModelWithProjection,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    Qwen2VLVideoProcessor,
)

from minigpt5.storyworld.miniature import CONTEXT_LENGTH, IMAGE_SIZE, build_tokenizer
from minigpt5.utils.integrity import load_whole

CHATML = """{% for message in messages %}<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}\
{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}\
{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
TURN = ("<|im_start|>", "<|im_end|>")
LOOK = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
PATCH = 8
WIDTH = 192


def build_qwen_processor(texts: Iterable[str]) -> Qwen2_5_VLProcessor:
    """A tokenizer made of `texts`, and pictures in patches of 8 pixels, four of which become a token."""
    tokenizer = build_tokenizer(texts, lowercase=False, max_length=CONTEXT_LENGTH)
    specials = [AddedToken(token, special=True, normalized=False) for token in (*TURN, *LOOK)]
    tokenizer.add_tokens(cast(Any, specials))
    tokenizer.eos_token = TURN[1]
    area = {"shortest_edge": IMAGE_SIZE**2, "longest_edge": IMAGE_SIZE**2}
    pictures = Qwen2VLImageProcessorPil(size=area, patch_size=PATCH, merge_size=2)
    return Qwen2_5_VLProcessor(pictures, tokenizer, Qwen2VLVideoProcessor(), chat_template=CHATML)


def build_qwen(processor: Qwen2_5_VLProcessor) -> Qwen2_5_VLForConditionalGeneration:
    """Three layers that look and four that speak, with rotary positions in time, height and width."""
    tokenizer = processor.tokenizer
    start, end, image, video = tokenizer.convert_tokens_to_ids(list(LOOK))
    config = Qwen2_5_VLConfig(
        vision_config={
            "depth": 3,
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_heads": 4,
            "out_hidden_size": WIDTH,
            "patch_size": PATCH,
            "window_size": IMAGE_SIZE,
            "fullatt_block_indexes": [0, 1, 2],
        },
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": WIDTH,
            "intermediate_size": 512,
            "num_hidden_layers": 4,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": CONTEXT_LENGTH,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [6, 5, 5]},
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        vision_start_token_id=start,
        vision_end_token_id=end,
        image_token_id=image,
        video_token_id=video,
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def build_flow_painter(miniature: Path) -> StableDiffusion3Pipeline:
    """A transformer that predicts the velocity of latents 16×16×4, without T5.

    The shape wants two CLIP text encoders with a projection: both are the miniature's, which has none, and so projects
    nothing.

    Args:
        miniature: folder of a pipeline, whose VAE, text encoder and tokenizer are used.
    """
    vae = load_whole(AutoencoderKL, miniature, subfolder="vae", dtype=torch.float32)
    vae.register_to_config(shift_factor=0.0)
    tokenizer = AutoTokenizer.from_pretrained(miniature, subfolder="tokenizer", trust_remote_code=False)
    clip = CLIPTextModelWithProjection.from_pretrained(
        miniature, subfolder="text_encoder", dtype=torch.float32, trust_remote_code=False
    )
    width = clip.config.hidden_size
    clip.text_projection.weight.data = torch.eye(width)
    transformer = SD3Transformer2DModel(
        sample_size=IMAGE_SIZE // 4,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        num_attention_heads=6,
        attention_head_dim=32,
        joint_attention_dim=2 * width,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=2 * width,
        pos_embed_max_size=IMAGE_SIZE // 8,
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=clip,
        tokenizer=tokenizer,
        text_encoder_2=clip,
        tokenizer_2=tokenizer,
        text_encoder_3=cast(Any, None),
        tokenizer_3=None,
    )
