"""The parts of storyworld-mini: a MiniGPT-5 whose every component is small enough to train on two CPU cores.

Sizes live here and nowhere else. Pictures are read at 64×64 and painted at 128×128; latents are 16×16×4, text features
32×128.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch.nn.functional import l1_loss, mse_loss
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from minigpt5.storyworld.draw import character_rows
from minigpt5.vokens.mapper import VokenMapper

IMAGE_SIZE = 64
PICTURE_SIZE = 128
VAE_CHANNELS = (16, 32, 64)
LATENT_SIZE = 16
TEXT_LENGTH = 32
TEXT_DIM = 128
CONTEXT_LENGTH = 512
NUM_QUERY_TOKENS = 8
VOCAB_SIZE = 600
# Words as people type them, in capitals and all, need more.
ASKED_VOCAB_SIZE = 1200
PAD, BOS, EOS = "<pad>", "<s>", "</s>"


def build_tokenizer(
    texts: Iterable[str], lowercase: bool, max_length: int, vocab_size: int = VOCAB_SIZE
) -> PreTrainedTokenizerFast:
    """A byte-fallback BPE tokenizer with punctuation kept apart, in the manner of Llama's.

    So are digits, and what stands between the numbers of a box `{<x1><y1><x2><y2>}`.
    """
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token=None))
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    kept_apart = Regex(r"[.,:;!?'\"()]|\{<|><|>\}|\d")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(kept_apart, "isolated"),
            pre_tokenizers.Metaspace(prepend_scheme="first"),
        ]
    )
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    specials = [PAD, BOS, EOS]
    bytes_and_specials = specials + [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=bytes_and_specials, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    # The trainer takes the bytes into the vocabulary as special tokens only; specials would be left out of replies.
    settings = json.loads(tokenizer.to_str())
    settings["added_tokens"] = [token for token in settings["added_tokens"] if token["content"] in specials]
    tokenizer = Tokenizer.from_str(json.dumps(settings))
    ids = [(token, tokenizer.token_to_id(token)) for token in (BOS, EOS)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BOS} $A {EOS}", special_tokens=ids)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=max_length,
        clean_up_tokenization_spaces=False,
    )


def build_vae(size: int = IMAGE_SIZE, channels: tuple[int, ...] = VAE_CHANNELS) -> AutoencoderKL:
    """size×size×3 to latents of 4 channels and back, the sides halved between each two levels of `channels`."""
    return AutoencoderKL(
        block_out_channels=cast(Any, channels),
        down_block_types=cast(Any, ("DownEncoderBlock2D",) * len(channels)),
        up_block_types=cast(Any, ("UpDecoderBlock2D",) * len(channels)),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=size,
        scaling_factor=1.0,
    )


def reconstruction_loss(
    decoded: torch.Tensor, pixels: torch.Tensor, l1_weight: float, character_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """What a VAE's pictures `(pictures, 3, size, size)` are off by, pixels where characters stand counting more.

    They are what a viewer looks at.

    Returns:
        Squared and weighted absolute error together, and the squared one alone.
    """
    weight = torch.ones(1, 1, pixels.shape[2], 1, device=pixels.device)
    weight[:, :, character_rows(pixels.shape[2])] = character_weight
    weight = weight / weight.mean()
    squared = (mse_loss(decoded, pixels, reduction="none") * weight).mean()
    absolute = (l1_loss(decoded, pixels, reduction="none") * weight).mean()
    return squared + l1_weight * absolute, squared


def build_text_encoder(tokenizer: PreTrainedTokenizerFast, width: int = TEXT_DIM, layers: int = 3) -> CLIPTextModel:
    """Captions to (32, width) text features."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=4,
            max_position_embeddings=TEXT_LENGTH,
            projection_dim=width,
            pad_token_id=cast(int, tokenizer.pad_token_id),
            bos_token_id=cast(int, tokenizer.bos_token_id),
            eos_token_id=cast(int, tokenizer.eos_token_id),
        )
    )


def build_unet() -> UNet2DConditionModel:
    """Cross-attention from 8×8 down, with a 4×4 level that places things."""
    return UNet2DConditionModel(
        sample_size=LATENT_SIZE,
        in_channels=4,
        out_channels=4,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        attention_head_dim=4,
        cross_attention_dim=TEXT_DIM,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """v-prediction down to pure noise, so that few steps from pure noise are enough."""
    return DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
        clip_sample=False,
        set_alpha_to_one=True,
    )


def build_image_processor(size: int = IMAGE_SIZE) -> BlipImageProcessorPil:
    """Any picture to size×size, values in [-1, 1]."""
    return BlipImageProcessorPil(size={"height": size, "width": size}, image_mean=[0.5] * 3, image_std=[0.5] * 3)


def build_comprehension(
    vocab_size: int, image_token_id: int, tokenizer: PreTrainedTokenizerFast
) -> Blip2ForConditionalGeneration:
    """ViT, Q-Former with 8 queries, linear projection and a Llama, the shape of MiniGPT-4's stack."""
    config = Blip2Config(
        vision_config={
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": IMAGE_SIZE,
            "patch_size": 8,
            "initializer_range": 0.02,
        },
        qformer_config={
            "hidden_size": 128,
            "intermediate_size": 512,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "cross_attention_frequency": 1,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "vocab_size": 1,
        },
        text_config=LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=192,
            intermediate_size=512,
            num_hidden_layers=4,
            num_attention_heads=6,
            num_key_value_heads=6,
            max_position_embeddings=CONTEXT_LENGTH,
            pad_token_id=cast(int, tokenizer.pad_token_id),
            bos_token_id=cast(int, tokenizer.bos_token_id),
            eos_token_id=cast(int, tokenizer.eos_token_id),
        ).to_dict(),
        num_query_tokens=NUM_QUERY_TOKENS,
        image_token_index=image_token_id,
    )
    model = Blip2ForConditionalGeneration(config)
    model.query_tokens.data.normal_(std=0.02)
    return model


def build_mapper() -> VokenMapper:
    """From the Llama's width to the text features'."""
    return VokenMapper(voken_dim=192, text_dim=TEXT_DIM, text_length=TEXT_LENGTH)
