"""Every text-to-image pipeline of diffusers whose call takes embeddings paints, though nobody has thought of it."""

import copy
import functools
import inspect

import diffusers
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler as Flow
from painter_parts import SMALL, randomise, sana_transformer, sana_vae, sd3_transformer, seeded, unet, unet_xl, vae
from torch import nn

from minigpt5 import MiniGPT5Pipeline
from minigpt5.joining import new_pipeline
from minigpt5.painters import FAMILIES, painter_of
from minigpt5.painters.base import UNFIT

JOINT = SMALL | {"num_single_layers": 1, "joint_attention_dim": 32, "axes_dims_rope": (4, 4, 8)}
NO_CHECKER = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def parts(kind, **given):
    """A pipeline of parts, without what it reads captions by."""
    takes = inspect.signature(getattr(diffusers, kind).__init__).parameters
    needed = [n for n, p in takes.items() if p.default is p.empty and n not in ("self", "args", "kwargs")]
    return getattr(diffusers, kind)(**dict.fromkeys(needed) | given)


def aura_flow():
    transformer = diffusers.AuraFlowTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        sample_size=8,
        joint_attention_dim=32,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    return parts("AuraFlowPipeline", vae=vae(), transformer=transformer, scheduler=Flow())


def bria():
    transformer = diffusers.BriaTransformer2DModel(**JOINT, in_channels=16)
    return parts("BriaPipeline", vae=vae(levels=2), transformer=transformer, scheduler=Flow())


def chroma():
    transformer = diffusers.ChromaTransformer2DModel(
        **JOINT, in_channels=16, approximator_num_channels=8, approximator_hidden_dim=16, approximator_layers=1
    )
    return parts("ChromaPipeline", vae=vae(shift_factor=0.1), transformer=transformer, scheduler=Flow())


def cogview3():
    transformer = diffusers.CogView3PlusTransformer2DModel(
        **SMALL, in_channels=4, out_channels=4, text_embed_dim=32, time_embed_dim=8, condition_dim=4, sample_size=8
    )
    scheduler = diffusers.CogVideoXDDIMScheduler()
    return parts("CogView3PlusPipeline", vae=vae(), transformer=transformer, scheduler=scheduler)


def cogview4():
    transformer = diffusers.CogView4Transformer2DModel(
        **SMALL, in_channels=4, out_channels=4, text_embed_dim=32, time_embed_dim=8, condition_dim=4, sample_size=8
    )
    scheduler = Flow(base_shift=0.25, max_shift=0.75, use_dynamic_shifting=True, time_shift_type="linear")
    return parts("CogView4Pipeline", vae=vae(), transformer=transformer, scheduler=scheduler)


def flux2_vae():
    return diffusers.AutoencoderKLFlux2(
        block_out_channels=(4,),
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        layers_per_block=1,
        latent_channels=1,
        norm_num_groups=1,
    )


def ernie():
    transformer = diffusers.ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=1,
        ffn_hidden_size=32,
        in_channels=4,
        out_channels=4,
        text_in_dim=32,
        rope_axes_dim=(4, 4, 8),
    )
    return parts("ErnieImagePipeline", vae=flux2_vae(), transformer=transformer, scheduler=Flow())


def flux2(kind="Flux2Pipeline", **given):
    transformer = diffusers.Flux2Transformer2DModel(
        **SMALL, num_single_layers=1, in_channels=4, joint_attention_dim=32, axes_dims_rope=(4, 4, 4, 4)
    )
    return parts(kind, vae=flux2_vae(), transformer=transformer, scheduler=Flow(use_dynamic_shifting=True), **given)


def flux2_klein():
    return flux2("Flux2KleinPipeline")


def flux_kontext():
    transformer = diffusers.FluxTransformer2DModel(**JOINT, in_channels=16, pooled_projection_dim=32)
    return parts("FluxKontextPipeline", vae=vae(shift_factor=0.1), transformer=transformer, scheduler=Flow())


def hunyuan_dit(kind="HunyuanDiTPipeline", **given):
    transformer = diffusers.HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=32,
        num_layers=2,
        mlp_ratio=2,
        cross_attention_dim=32,
        cross_attention_dim_t5=24,
        pooled_projection_dim=32,
        text_len=6,
        text_len_t5=9,
    )
    given |= {"vae": vae(levels=4), "transformer": transformer, "scheduler": diffusers.DDPMScheduler()}
    return parts(kind, **NO_CHECKER, **given)


def hunyuan_dit_pag():
    return hunyuan_dit("HunyuanDiTPAGPipeline", pag_applied_layers=["1"])


def hunyuan_image():
    autoencoder = diffusers.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=32,
        block_out_channels=(32, 64, 64, 64),
        layers_per_block=1,
        spatial_compression_ratio=8,
        sample_size=32,
        scaling_factor=0.5,
    )
    transformer = diffusers.HunyuanImageTransformer2DModel(
        **SMALL,
        num_single_layers=1,
        num_refiner_layers=1,
        in_channels=32,
        out_channels=32,
        text_embed_dim=32,
        text_embed_2_dim=24,
        rope_axes_dim=(8, 8),
    )
    guider = diffusers.AdaptiveProjectedMixGuidance(guidance_scale=3.0)
    given = {"vae": autoencoder, "transformer": transformer, "scheduler": Flow(), "guider": guider}
    return parts("HunyuanImagePipeline", **given)


def deep_floyd():
    network = diffusers.UNet2DConditionModel(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(16, 32),
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        cross_attention_dim=32,
        encoder_hid_dim=32,
        attention_head_dim=8,
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        cross_attention_norm="group_norm",
        resnet_time_scale_shift="scale_shift",
        act_fn="gelu",
        norm_num_groups=8,
    )
    scheduler = diffusers.DDPMScheduler(variance_type="learned_range", thresholding=True)
    return parts("IFPipeline", unet=network, scheduler=scheduler, **NO_CHECKER)


def kolors(kind="KolorsPipeline", **given):
    network = unet(
        cross_attention_dim=32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
        encoder_hid_dim=16,
        encoder_hid_dim_type="text_proj",
    )
    return parts(kind, vae=vae(), unet=network, scheduler=diffusers.EulerDiscreteScheduler(), **given)


def kolors_pag():
    return kolors("KolorsPAGPipeline", pag_applied_layers=["mid"])


def latent_consistency():
    network = unet(cross_attention_dim=32, time_cond_proj_dim=16)
    scheduler = diffusers.LCMScheduler()
    return parts("LatentConsistencyModelPipeline", vae=vae(), unet=network, scheduler=scheduler, **NO_CHECKER)


def lumina():
    transformer = diffusers.LuminaNextDiT2DModel(
        sample_size=4,
        hidden_size=24,
        num_layers=1,
        num_attention_heads=3,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=32,
    )
    return parts("LuminaPipeline", vae=vae(levels=4), transformer=transformer, scheduler=Flow())


def qwen_vae():
    return diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )


def nucleus():
    transformer = diffusers.NucleusMoEImageTransformer2DModel(
        **SMALL, in_channels=16, out_channels=4, joint_attention_dim=32, axes_dims_rope=(4, 4, 8), moe_enabled=False
    )
    return parts("NucleusMoEImagePipeline", vae=qwen_vae(), transformer=transformer, scheduler=Flow())


def ovis():
    transformer = diffusers.OvisImageTransformer2DModel(**JOINT, in_channels=16, out_channels=16)
    return parts("OvisImagePipeline", vae=vae(shift_factor=0.1), transformer=transformer, scheduler=Flow())


def pixart_alpha(kind="PixArtAlphaPipeline", **given):
    transformer = diffusers.PixArtTransformer2DModel(
        **SMALL, in_channels=4, out_channels=8, cross_attention_dim=32, caption_channels=32, sample_size=8
    )
    scheduler = diffusers.DPMSolverMultistepScheduler()
    return parts(kind, vae=vae(), transformer=transformer, scheduler=scheduler, **given)


def pixart_pag():
    return pixart_alpha("PixArtSigmaPAGPipeline", pag_applied_layers=["blocks.0"])


def sana(kind, scheduler, **given):
    transformer = sana_transformer(qk_norm="rms_norm_across_heads", guidance_embeds=kind == "SanaSprintPipeline")
    return parts(kind, vae=sana_vae(), transformer=transformer, scheduler=scheduler, **given)


def sana_sprint():
    return sana("SanaSprintPipeline", diffusers.SCMScheduler())


def sana_pag():
    return sana("SanaPAGPipeline", Flow(), pag_applied_layers=["transformer_blocks.0"])


def stable_diffusion_pag():
    given = {"vae": vae(), "unet": unet(cross_attention_dim=32), "scheduler": diffusers.DDIMScheduler()}
    return parts("StableDiffusionPAGPipeline", **given, **NO_CHECKER, pag_applied_layers=["mid"])


def stable_diffusion_xl_pag():
    given = {"vae": vae(), "unet": unet_xl(), "scheduler": diffusers.EulerDiscreteScheduler(), "add_watermarker": False}
    return parts("StableDiffusionXLPAGPipeline", **given, pag_applied_layers=["mid"])


def stable_diffusion_3_pag():
    given = {"vae": vae(shift_factor=0.1), "transformer": sd3_transformer(), "scheduler": Flow()}
    return parts("StableDiffusion3PAGPipeline", **given, pag_applied_layers=["blocks.0"])


def wan():
    autoencoder = diffusers.AutoencoderKLWan(
        base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    transformer = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        text_dim=32,
        freq_dim=32,
        ffn_dim=32,
        num_layers=1,
        rope_max_seq_len=32,
    )
    return parts("WanPipeline", vae=autoencoder, transformer=transformer, scheduler=Flow())


def z_image():
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[4, 4, 8],
        axes_lens=[1024, 32, 32],
    )
    return parts("ZImagePipeline", vae=vae(levels=4, shift_factor=0.1), transformer=transformer, scheduler=Flow())


OTHERS = {
    build.__name__: build
    for build in (
        aura_flow,
        bria,
        chroma,
        cogview3,
        cogview4,
        ernie,
        flux2,
        flux2_klein,
        flux_kontext,
        hunyuan_dit,
        hunyuan_dit_pag,
        hunyuan_image,
        deep_floyd,
        kolors,
        kolors_pag,
        latent_consistency,
        lumina,
        nucleus,
        ovis,
        pixart_alpha,
        pixart_pag,
        sana_pag,
        sana_sprint,
        stable_diffusion_pag,
        stable_diffusion_xl_pag,
        stable_diffusion_3_pag,
        wan,
        z_image,
    )
}


@pytest.fixture(scope="module")
def others():
    """Painters of these pipelines by their names, each built once."""

    @functools.cache
    def build(name):
        torch.manual_seed(0)
        pipeline = OTHERS[name]()
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                randomise(part.eval())
        pipeline.set_progress_bar_config(disable=True)
        return painter_of(pipeline)

    return build


@pytest.mark.parametrize("name", OTHERS)
def test_a_batch_is_painted_as_each_row_alone(others, random_conditioning, name):
    painter = others(name)
    conditioning = random_conditioning(painter, 2)
    null = {name: torch.zeros_like(value[:1]) for name, value in conditioning.items()}

    def paint(features, *seeds):
        generator = [seeded(seed) for seed in seeds]
        options = {"num_inference_steps": 2, "height": 32, "width": 32, "output_type": "pt"}
        return painter.paint(features, null, 3.0, generator=generator, **options)

    first, second = paint(conditioning, 0, 1)
    assert first.shape == (3, 32, 32)
    (alone,) = paint({name: value[1:] for name, value in conditioning.items()}, 1)
    torch.testing.assert_close(second, alone, atol=1e-4, rtol=0)
    # Each of the tensors is seen.
    for name in conditioning:
        (other,) = paint({key: value[: 1 if key == name else 2][-1:] for key, value in conditioning.items()}, 1)
        assert (other - alone).abs().max() > 1e-5, name


def test_features_are_padded_where_there_must_be_as_many(others, random_conditioning):
    """The denoiser learnt what stands where there is none: 6 places for one encoder's features, 9 for the other's."""
    painter = others("hunyuan_dit")
    conditioning = random_conditioning(painter, 2)
    given = painter.arguments(conditioning)
    assert painter.shapes() == {"prompt_embeds": (6, 32), "prompt_embeds_2": (9, 24)}
    assert given["prompt_embeds_2"].shape == (2, 9, 24)
    assert given["prompt_attention_mask"].sum(1).tolist() == given["prompt_attention_mask_2"].sum(1).tolist() == [5, 5]
    long = {name: value.repeat(1, 2, 1) for name, value in conditioning.items()}
    with pytest.raises(ValueError, match="HunyuanDiTPipeline takes 6 features of prompt_embeds, got 10"):
        painter.arguments(long)


@pytest.mark.parametrize("name", OTHERS)
def test_joined_with_a_reader_it_is_saved_and_opened(others, tiny_pipe, tmp_path, name):
    painter = others(name)
    reader = copy.deepcopy(tiny_pipe.comprehension)
    pipe = new_pipeline(reader, tiny_pipe.processor, painter.pipeline, num_layers=1, num_heads=4)
    made = pipe.conditioning(torch.randn(1, 8, 192))
    assert {name: value.shape[2:] for name, value in made.items() if value.ndim == 3} == {
        name: shape[1:] for name, shape in painter.shapes().items() if len(shape) == 2
    }
    pipe.save_pretrained(tmp_path)
    options = {"image_mode": "always", "max_new_tokens": 3, "num_inference_steps": 2, "output_type": "pt"}
    pictures = []
    for each in (pipe, MiniGPT5Pipeline.from_pretrained(tmp_path)):
        each.set_progress_bar_config(disable=True)
        pictures += each("Draw a fox.", **options, height=32, width=32, generator=seeded()).images[0]
    assert pictures[0].shape == (3, 32, 32)
    torch.testing.assert_close(*pictures, atol=1e-5, rtol=0)


# All there are

# Networks of theirs that a joined pipeline has no place for.
OF_OTHER_PARTS = {
    "GlmImagePipeline": "vision_language_encoder",
    "Kandinsky3Pipeline": "movq",
    "StableCascadeCombinedPipeline": "prior_prior",
    "StableDiffusionControlNetPAGPipeline": "controlnet",
    "StableDiffusionControlNetPipeline": "controlnet",
    "StableDiffusionXLControlNetPAGPipeline": "controlnet",
    "StableDiffusionXLControlNetPipeline": "controlnet",
    "StableUnCLIPPipeline": "prior",
    "ZImageOmniPipeline": "siglip",
}


def makers_of_pictures():
    """The pipelines of diffusers that can be given embeddings and a size; no films, and none that are outdated."""
    for name in dir(diffusers):
        kind = getattr(diffusers, name) if name.endswith("Pipeline") else None
        if inspect.isclass(kind) and "deprecated" not in kind.__module__:
            takes = inspect.signature(kind.__call__).parameters
            films = {"num_frames", "video_length", "frames"} & takes.keys()
            if {"prompt_embeds", "height", "width"} <= takes.keys() and not films:
                yield kind


@pytest.mark.skipif(not diffusers.__version__.startswith("0.42"), reason="goes through the pipelines of diffusers 0.42")
def test_whatever_does_not_paint_is_refused(others, monkeypatch):
    paint = {others(name).name for name in OTHERS} | FAMILIES.keys()
    rest = [kind for kind in makers_of_pictures() if kind.__name__ not in paint]
    assert {kind.__name__ for kind in rest} > OF_OTHER_PARTS.keys() | UNFIT.keys()
    for kind in rest:
        name, part = kind.__name__, OF_OTHER_PARTS.get(kind.__name__)
        says = r"cannot paint from embeddings alone: its call needs \w+"
        if part is not None:
            assert part in inspect.signature(kind).parameters
            says = f"paints with {part}, which there is no place for"
        elif name in UNFIT:
            says = f"cannot paint what vokens say: {UNFIT[name]}"
        monkeypatch.setattr(kind, "components", {part: nn.Identity()} if part else {})
        with pytest.raises(ValueError, match=f"^{name} {says}"):
            painter_of(object.__new__(kind))


def test_sounds_are_no_pictures():
    with pytest.raises(ValueError, match="StableAudioPipeline makes no pictures: its call takes no height and width"):
        painter_of(object.__new__(diffusers.StableAudioPipeline))
