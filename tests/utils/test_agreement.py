"""Parts that contradict each other make no pipeline."""

import copy

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from minigpt5 import MiniGPT5Pipeline, MiniGPT5Processor, VokenMapper
from minigpt5.storyworld import miniature

TINY = {"block_out_channels": (32, 32), "norm_num_groups": 8}


def unet(**settings):
    blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
    return UNet2DConditionModel(**{"cross_attention_dim": 128, "sample_size": 16} | blocks | TINY | settings)


def text_encoder(**settings):
    sizes = {"hidden_size": 128, "max_position_embeddings": 32, "intermediate_size": 8, "num_hidden_layers": 1}
    return CLIPTextModel(CLIPTextConfig(**sizes | {"num_attention_heads": 1, "vocab_size": 475} | settings))


def processor(texts, size=64, **settings):
    tokenizer = miniature.build_tokenizer(texts, lowercase=False, max_length=miniature.CONTEXT_LENGTH)
    image_processor = miniature.build_image_processor()
    image_processor.size = {"height": size, "width": size}
    return MiniGPT5Processor(image_processor, tokenizer, **{"num_query_tokens": 8, "n_vokens": 8} | settings)


@pytest.mark.parametrize(
    ("name", "build", "says"),
    [
        ("mapper", lambda _: VokenMapper(191, 128, 32, 1), "voken_dim is 191, but the width of .* states is 192"),
        ("mapper", lambda _: VokenMapper(192, 64, 32, 1), "text_dim is 64, but the UNet's cross_attention_dim is 128"),
        ("unet", lambda _: unet(cross_attention_dim=(96, 128)), "128, but the UNet's cross_attention_dim is 96"),
        ("unet", lambda _: unet(in_channels=9), "UNet's in_channels is 9, but the VAE's latent_channels is 4"),
        ("unet", lambda _: unet(out_channels=8), "UNet's out_channels is 8, but the VAE's latent_channels is 4"),
        ("vae", lambda _: AutoencoderKL(latent_channels=16, norm_num_groups=4, block_out_channels=(8,)), "is 16"),
        ("text_encoder", lambda _: text_encoder(hidden_size=64), "128, but the text encoder's hidden_size is 64"),
        ("text_encoder", lambda _: text_encoder(max_position_embeddings=77), "text_length is 32, but .* is 77"),
        (
            "scheduler",
            lambda _: DDIMScheduler(trained_betas=[0.1, 0.2]),
            r"noise levels is \(2,\), but .* \(1000,\)",
        ),
        ("processor", lambda texts: processor(texts, num_query_tokens=4), "num_query_tokens is 4, but .* is 8"),
        ("processor", lambda texts: processor(texts, n_vokens=9), "image_token_id is .*; the vocabulary of the"),
        ("processor", lambda texts: processor(texts, size=32), r"pictures is \(32, 32\), but .* is \(64, 64\)"),
    ],
)
def test_parts_that_do_not_belong_together_are_named(pipe, texts, name, build, says):
    with pytest.raises(ValueError, match=f"do not belong together: .*{says}"):
        MiniGPT5Pipeline(**pipe.components | {name: build(texts)})


def test_a_context_without_room_for_a_picture_is_refused(pipe):
    comprehension = copy.copy(pipe.comprehension)
    comprehension.config = copy.deepcopy(pipe.comprehension.config)
    comprehension.config.text_config.max_position_embeddings = 15
    with pytest.raises(ValueError, match="one that is painted take is 16, more than the context, 15"):
        MiniGPT5Pipeline(**pipe.components | {"comprehension": comprehension})


def test_all_contradictions_are_one_error(pipe, texts):
    parts = pipe.components | {"processor": processor(texts, num_query_tokens=4), "unet": unet(in_channels=9)}
    with pytest.raises(ValueError, match=r"num_query_tokens is 4.*; the UNet's in_channels is 9"):
        MiniGPT5Pipeline(**parts)


def test_parts_that_are_left_out_contradict_nothing(pipe):
    parts = pipe.components | {"vae": None, "unet": unet(in_channels=9), "text_encoder": text_encoder()}
    assert MiniGPT5Pipeline(**parts).vae is None
    assert torch.is_tensor(MiniGPT5Pipeline(**pipe.components).null_embeds())
