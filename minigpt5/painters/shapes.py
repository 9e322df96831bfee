"""Diffusion models in their published shapes, without weights or hub: to count what a joined pipeline costs.

The numbers are those of the models' configurations. Text encoders, which only the caption loss needs, are left out.
"""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
)

from minigpt5.utils.meta import empty_weights


def sana_0_6b() -> DiffusionPipeline:
    """SANA 0.6B for 512 × 512 pixels (arXiv 2410.10629), on the meta device."""
    with empty_weights():
        transformer = SanaTransformer2DModel(
            num_attention_heads=36,
            attention_head_dim=32,
            num_layers=28,
            num_cross_attention_heads=16,
            cross_attention_head_dim=72,
            cross_attention_dim=1152,
            sample_size=16,
        )
        blocks: Any = ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3
        vae = AutoencoderDC(
            encoder_block_types=blocks,
            decoder_block_types=blocks,
            encoder_layers_per_block=(2, 2, 2, 3, 3, 3),
            decoder_layers_per_block=(3,) * 6,
            encoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
            decoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
            downsample_block_type="Conv",
            upsample_block_type="interpolate",
            scaling_factor=0.41407,
        )
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    nothing: Any = None
    return SanaPipeline(nothing, nothing, vae=vae, transformer=transformer, scheduler=scheduler)


def flux_1() -> DiffusionPipeline:
    """FLUX.1 [dev], on the meta device."""
    with empty_weights():
        transformer = FluxTransformer2DModel(guidance_embeds=True)
        levels: dict[str, Any] = {
            "down_block_types": ("DownEncoderBlock2D",) * 4,
            "up_block_types": ("UpDecoderBlock2D",) * 4,
            "block_out_channels": (128, 256, 512, 512),
        }
        vae = AutoencoderKL(
            **levels,
            latent_channels=16,
            layers_per_block=2,
            sample_size=1024,
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
    scheduler = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True)
    nothing: dict[str, Any] = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    return FluxPipeline(scheduler=scheduler, vae=vae, transformer=transformer, **nothing)
