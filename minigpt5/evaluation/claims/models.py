"""The shapes of what the claims compare: the miniature's, cut down to pictures of 32×32 and latents of 8×8."""

from __future__ import annotations

from typing import cast

from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipImageProcessorPil,
    CLIPTextModel,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from minigpt5.evaluation.claims.world import SIZE
from minigpt5.storyworld import miniature
from minigpt5.storyworld.judge import Judge

LATENT_SIZE, TEXT_DIM, CONTEXT_LENGTH, NUM_QUERY_TOKENS, WIDTH = 8, 64, 256, 4, 96
TEXT_LENGTH = miniature.TEXT_LENGTH


def build_vae() -> AutoencoderKL:
    """32×32×3 to 8×8×4 and back."""
    return miniature.build_vae(SIZE, (16, 32, 32))


def build_judge() -> Judge:
    """Reads 32×32 down to 4×4."""
    return Judge(channels=(24, 48, 64), image_size=SIZE)


def build_text_encoder(tokenizer: PreTrainedTokenizerFast) -> CLIPTextModel:
    """Captions to (32, 64) text features."""
    return miniature.build_text_encoder(tokenizer, TEXT_DIM, layers=2)


def build_unet() -> UNet2DConditionModel:
    """Cross-attention at 8×8 and 4×4."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=4,
        out_channels=4,
        block_out_channels=(32, 64),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=TEXT_DIM,
        norm_num_groups=16,
    )


def build_image_processor() -> BlipImageProcessorPil:
    """Pictures to 32×32, values in [-1, 1]."""
    return miniature.build_image_processor(SIZE)


def build_comprehension(
    vocab_size: int, image_token_id: int, tokenizer: PreTrainedTokenizerFast
) -> Blip2ForConditionalGeneration:
    """ViT, Q-Former with 4 queries, linear projection and a Llama of 3 layers."""
    small = {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4}
    model = Blip2ForConditionalGeneration(
        Blip2Config(
            vision_config={**small, "num_hidden_layers": 2, "image_size": SIZE, "patch_size": 8}
            | {"initializer_range": 0.02},
            qformer_config={
                **small,
                "num_hidden_layers": 1,
                "cross_attention_frequency": 1,
                "hidden_dropout_prob": 0.0,
                "attention_probs_dropout_prob": 0.0,
                "encoder_hidden_size": 64,
                "vocab_size": 1,
            },
            text_config=LlamaConfig(
                vocab_size=vocab_size,
                hidden_size=WIDTH,
                intermediate_size=256,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=4,
                max_position_embeddings=CONTEXT_LENGTH,
                pad_token_id=cast(int, tokenizer.pad_token_id),
                bos_token_id=cast(int, tokenizer.bos_token_id),
                eos_token_id=cast(int, tokenizer.eos_token_id),
            ).to_dict(),
            num_query_tokens=NUM_QUERY_TOKENS,
            image_token_index=image_token_id,
        )
    )
    model.query_tokens.data.normal_(std=0.02)
    return model
