"""Tiny random diffusers pipelines of every family, of real components."""

from __future__ import annotations

import pytest
import torch
from diffusers import (
    AutoencoderKLQwenImage,
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    Lumina2Pipeline,
    Lumina2Transformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SanaPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from painter_parts import SMALL, randomise, sana_transformer, sana_vae, sd3_transformer, seeded, unet, unet_xl, vae
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)

from minigpt5.painters import painter_of

BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}


def clip(tokenizer, kind=CLIPTextModel, width=32):
    return kind(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=24,
            max_position_embeddings=77,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def t5(tokenizer, width=32):
    return T5EncoderModel(
        T5Config(vocab_size=len(tokenizer), d_model=width, d_kv=16, d_ff=32, num_layers=1, num_heads=2)
    )


def gemma(tokenizer, width=32):
    sizes = {"hidden_size": width, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    return Gemma2Model(Gemma2Config(vocab_size=len(tokenizer), num_key_value_heads=2, head_dim=16, **sizes))


def qwen(tokenizer, width=32):
    sizes = {"intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = sizes | {
        "hidden_size": width,
        "num_key_value_heads": 2,
        "vocab_size": len(tokenizer),
        "max_window_layers": 1,
    }
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [4, 2, 2], "rope_theta": 10_000.0}
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": width}
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision))


def stable_diffusion(tokenizer, prediction_type="epsilon"):
    scheduler = DDIMScheduler(**BETAS, clip_sample=False, steps_offset=1, prediction_type=prediction_type)
    parts = (vae(), clip(tokenizer), tokenizer, unet(cross_attention_dim=32), scheduler)
    return StableDiffusionPipeline(*parts, None, None, requires_safety_checker=False)


def stable_diffusion_v(tokenizer):
    return stable_diffusion(tokenizer, "v_prediction")


def stable_diffusion_xl(tokenizer):
    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip(tokenizer),
        text_encoder_2=clip(tokenizer, CLIPTextModelWithProjection),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet_xl(),
        scheduler=EulerDiscreteScheduler(**BETAS, timestep_spacing="leading", steps_offset=1),
        add_watermarker=False,
    )


def stable_diffusion_3(tokenizer):
    return StableDiffusion3Pipeline(
        transformer=sd3_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(shift_factor=0.06, scaling_factor=1.5),
        text_encoder=clip(tokenizer, CLIPTextModelWithProjection),
        tokenizer=tokenizer,
        text_encoder_2=clip(tokenizer, CLIPTextModelWithProjection),
        tokenizer_2=tokenizer,
        text_encoder_3=t5(tokenizer, 64),
        tokenizer_3=tokenizer,
    )


def flux(tokenizer, guidance_embeds=False):
    return FluxPipeline(
        transformer=FluxTransformer2DModel(
            **SMALL,
            num_single_layers=1,
            in_channels=16,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=(4, 4, 8),
            guidance_embeds=guidance_embeds,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae(shift_factor=0.1, scaling_factor=0.36),
        text_encoder=clip(tokenizer),
        tokenizer=tokenizer,
        text_encoder_2=t5(tokenizer),
        tokenizer_2=tokenizer,
    )


def flux_dev(tokenizer):
    return flux(tokenizer, guidance_embeds=True)


def sana(tokenizer):
    return SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=gemma(tokenizer),
        vae=sana_vae(decoder_norm_types="rms_norm", scaling_factor=0.41407),
        transformer=sana_transformer(),
        scheduler=DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )


def pixart(tokenizer):
    return PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=t5(tokenizer),
        vae=vae(),
        transformer=PixArtTransformer2DModel(
            **SMALL, in_channels=4, out_channels=8, cross_attention_dim=32, caption_channels=32, sample_size=8
        ),
        scheduler=DPMSolverMultistepScheduler(),
    )


def lumina2(tokenizer):
    return Lumina2Pipeline(
        transformer=Lumina2Transformer2DModel(
            sample_size=4,
            in_channels=4,
            hidden_size=24,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=2,
            num_kv_heads=1,
            multiple_of=8,
            axes_dim_rope=(4, 4, 4),
            axes_lens=(300, 16, 16),
            cap_feat_dim=32,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0, use_dynamic_shifting=True),
        vae=vae(levels=4, shift_factor=0.1, scaling_factor=0.36),
        text_encoder=gemma(tokenizer),
        tokenizer=tokenizer,
    )


def qwen_image(tokenizer):
    return QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=True),
        vae=AutoencoderKLQwenImage(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 2],
            num_res_blocks=1,
            temperal_downsample=[False],
            latents_mean=[0.1, -0.2, 0.3, 0.0],
            latents_std=[2.0, 1.5, 1.0, 0.5],
        ),
        text_encoder=qwen(tokenizer),
        tokenizer=tokenizer,
        transformer=QwenImageTransformer2DModel(
            **SMALL, in_channels=16, out_channels=4, joint_attention_dim=32, axes_dims_rope=(4, 4, 8)
        ),
    )


BUILDERS = {
    builder.__name__: builder
    for builder in (
        stable_diffusion,
        stable_diffusion_v,
        stable_diffusion_xl,
        stable_diffusion_3,
        flux,
        flux_dev,
        sana,
        pixart,
        lumina2,
        qwen_image,
    )
}
# Some pipelines do not know the size of such small ones.
SIDES = {"sana": 32, "lumina2": 32}


@pytest.fixture(scope="session")
def painters(texts):
    """`painters(name)` is the painter of a tiny random pipeline, its text encoders included; leave it as it is."""
    from minigpt5.storyworld import miniature

    tokenizer = miniature.build_tokenizer(texts, lowercase=True, max_length=77)
    built = {}

    def build(name):
        if name not in built:
            torch.manual_seed(0)
            pipeline = BUILDERS[name](tokenizer)
            for part in pipeline.components.values():
                if isinstance(part, torch.nn.Module):
                    part.eval().requires_grad_(False)
                    randomise(part)
            pipeline.set_progress_bar_config(disable=True)
            built[name] = painter_of(pipeline)
            built[name].side = SIDES.get(name, 16)
        return built[name]

    return build


@pytest.fixture(params=list(BUILDERS))
def painter(request, painters):
    """One painter after another."""
    return painters(request.param)


@pytest.fixture
def random_conditioning():
    """Random features for a number of pictures, in the shapes that a painter asks for."""

    def draw(painter, count, seed=1):
        return {
            name: torch.randn(count, *(shape if len(shape) == 1 else (5, shape[-1])), generator=seeded(seed + i))
            for i, (name, shape) in enumerate(painter.shapes().items())
        }

    return draw
