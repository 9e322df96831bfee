"""Another reader and another painter of the miniature's size, to be trained from nothing and joined with its parts.

The reader has the shape of Qwen2.5-VL, the painter that of Stable Diffusion 3. Sizes live here and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterable

from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from tokenizers import AddedToken
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessorPil,
    Qwen2VLVideoProcessor,
    T5Config,
    T5EncoderModel,
)

from minigpt5.storyworld.miniature import CONTEXT_LENGTH, IMAGE_SIZE, TEXT_LENGTH, build_tokenizer

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
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in (*TURN, *LOOK)])
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


def build_flow_painter(captions: Iterable[str], vae: AutoencoderKL) -> StableDiffusion3Pipeline:
    """Two CLIP text encoders, a T5, and a transformer that predicts the velocity of latents 16×16×4.

    Args:
        captions: what the tokenizer is made of.
        vae: the miniature's.
    """
    tokenizer = build_tokenizer(captions, lowercase=True, max_length=TEXT_LENGTH)
    first, second = (_clip(tokenizer, width, layers) for width, layers in ((128, 3), (64, 2)))
    width = first.config.hidden_size + second.config.hidden_size
    t5 = T5Config(
        vocab_size=len(tokenizer), d_model=width, d_kv=32, d_ff=512, num_layers=2, num_heads=6, dropout_rate=0.0
    )
    vae.register_to_config(shift_factor=0.0)
    transformer = SD3Transformer2DModel(
        sample_size=IMAGE_SIZE // 4,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=6,
        num_attention_heads=6,
        attention_head_dim=32,
        joint_attention_dim=width,
        caption_projection_dim=WIDTH,
        pooled_projection_dim=width,
        pos_embed_max_size=IMAGE_SIZE // 8,
        qk_norm="rms_norm",
    )
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=first,
        tokenizer=tokenizer,
        text_encoder_2=second,
        tokenizer_2=tokenizer,
        text_encoder_3=T5EncoderModel(t5),
        tokenizer_3=tokenizer,
    )


def _clip(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            projection_dim=width,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
