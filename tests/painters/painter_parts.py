"""Small parts that tiny random painters are made of."""

from __future__ import annotations

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)

SMALL = {"num_attention_heads": 2, "attention_head_dim": 16, "num_layers": 1}


def vae(levels=2, channels=4, **settings):
    return AutoencoderKL(
        block_out_channels=(8,) * levels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        latent_channels=channels,
        norm_num_groups=4,
        **settings,
    )


def unet(**settings):
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=2,
        norm_num_groups=4,
        **settings,
    )


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def unet_xl():
    return unet(
        cross_attention_dim=64,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
    )


def sd3_transformer():
    return SD3Transformer2DModel(
        **SMALL,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        joint_attention_dim=64,
        caption_projection_dim=32,
        pooled_projection_dim=48,
        pos_embed_max_size=8,
    )


def sana_transformer(**settings):
    return SanaTransformer2DModel(
        **SMALL,
        in_channels=4,
        out_channels=4,
        num_cross_attention_heads=2,
        cross_attention_head_dim=16,
        cross_attention_dim=32,
        caption_channels=32,
        sample_size=16,
        **settings,
    )


def sana_vae(**settings):
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_out_channels=(8, 16),
        decoder_block_out_channels=(8, 16),
        encoder_block_types=("ResBlock", "ResBlock"),
        decoder_block_types=("ResBlock", "ResBlock"),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), ()),
        decoder_qkv_multiscales=((), ()),
        **settings,
    )


# Lumina-Next's, and the experts' of Nucleus.
UNSET = ("pad_token", "gate_up_proj", "down_proj")


def randomise(module):
    """No weights of zero: many transformers start as the identity, which would hide a wrong input.

    Nor what happened to be in memory, which is what diffusers leaves in some parameters (`UNSET`).
    """
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] in UNSET or not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
