"""MiniGPT-5 in its published shapes, without its weights: to be counted, or timed with random ones.

Vicuna-7B behind BLIP-2's ViT-g (39 blocks) and Q-Former, the mapper, and Stable Diffusion 2.1-base. `scale` divides
widths and numbers of heads, and leaves depths, vocabulary and picture sizes as they are.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import (
    Blip2Config,
    CLIPTextConfig,
    CLIPTextModel,
    GenerationConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.published.checkpoints import GENERATION, SYSTEM
from minigpt5.published.tokenizer import BOS, EOS, UNK
from minigpt5.readers.minigpt4 import MiniGPT4ForConditionalGeneration
from minigpt5.readers.processor import MiniGPT5Processor
from minigpt5.utils.images import published_image_processor
from minigpt5.utils.meta import empty_weights
from minigpt5.utils.processes import pick_device
from minigpt5.utils.tensors import replace_parameters
from minigpt5.vokens.mapper import VokenMapper

LLAMA_VOCABULARY, N_VOKENS, QUERIES, IMAGE_SIZE = 32_000, 8, 32, 224
# The vokens and the image mark come behind Llama's own tokens.
VOCABULARY = LLAMA_VOCABULARY + N_VOKENS + 1
SCALES = (1, 2, 4, 8, 16, 32)


def published_config(scale: int = 1) -> Blip2Config:
    """The comprehension stack's configuration.

    Raises:
        ValueError: for a scale that does not divide the widths.
    """
    if scale not in SCALES:
        raise ValueError(f"scale must be one of {', '.join(map(str, SCALES))}, got {scale}")
    return Blip2Config(
        vision_config={
            "hidden_size": 1408 // scale,
            "intermediate_size": 6144 // scale,
            "num_hidden_layers": 39,
            "num_attention_heads": max(1, 16 // scale),
            "image_size": IMAGE_SIZE,
            "patch_size": 14,
            "layer_norm_eps": 1e-6,
            "post_layernorm_eps": 1e-5,
            "initializer_range": 0.02,
        },
        qformer_config={
            "hidden_size": 768 // scale,
            "encoder_hidden_size": 1408 // scale,
            "intermediate_size": 3072 // scale,
            "num_hidden_layers": 12,
            "num_attention_heads": max(1, 12 // scale),
            "cross_attention_frequency": 2,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "vocab_size": 1,
        },
        text_config=LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=4096 // scale,
            intermediate_size=11_008 // scale,
            num_hidden_layers=32,
            num_attention_heads=32 // scale,
            max_position_embeddings=2048,
            rms_norm_eps=1e-6,
        ).to_dict(),
        num_query_tokens=QUERIES,
        image_token_index=VOCABULARY - 1,
    )


def empty_parts(scale: int = 1) -> dict[str, Any]:
    """All networks by their names in the pipeline, their parameters on the meta device.

    Raises:
        ValueError: for a scale that does not divide the widths.
    """
    config = published_config(scale)
    text_dim = 1024 // scale
    with empty_weights():
        return {
            "comprehension": MiniGPT4ForConditionalGeneration(config),
            "mapper": VokenMapper(voken_dim=config.get_text_config().hidden_size, text_dim=text_dim),
            "unet": UNet2DConditionModel(
                sample_size=64,
                block_out_channels=tuple(width // scale for width in (320, 640, 1280, 1280)),
                # Of this model, the numbers of heads.
                attention_head_dim=cast(Any, tuple(max(1, heads // scale) for heads in (5, 10, 20, 20))),
                cross_attention_dim=text_dim,
                use_linear_projection=True,
                norm_num_groups=32 // scale,
            ),
            "vae": AutoencoderKL(
                sample_size=768,
                down_block_types=cast(Any, ("DownEncoderBlock2D",) * 4),
                up_block_types=cast(Any, ("UpDecoderBlock2D",) * 4),
                block_out_channels=cast(Any, tuple(width // scale for width in (128, 256, 512, 512))),
                layers_per_block=2,
                norm_num_groups=32 // scale,
            ),
            "text_encoder": CLIPTextModel(
                CLIPTextConfig(
                    hidden_size=text_dim,
                    intermediate_size=4 * text_dim,
                    num_hidden_layers=23,
                    num_attention_heads=max(1, 16 // scale),
                    projection_dim=512 // scale,
                    hidden_act="gelu",
                )
            ),
        }


def fill_at_random(module: nn.Module, dtype: torch.dtype, device: str | torch.device) -> nn.Module:
    """Give a network of the meta device frozen parameters, one at a time: N(0, 0.02²), norms 1 and biases 0.

    They are drawn on the GPU where there is one, which takes seconds where a CPU takes minutes.
    """
    drawn_on = pick_device()

    def value(name: str, parameter: nn.Parameter) -> torch.Tensor:
        tensor = torch.empty(parameter.shape, dtype=dtype, device=drawn_on)
        if parameter.ndim > 1:
            return tensor.normal_(0, 0.02).to(device)
        return tensor.fill_(name.endswith("weight")).to(device)

    replace_parameters(module, value)
    return module.to(device).eval().requires_grad_(False)


def stand_in_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with as many pieces as Llama's, which has to be downloaded."""
    pieces = [UNK, BOS, EOS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    pieces += [f"piece{i}" for i in range(LLAMA_VOCABULARY - len(pieces))]
    backend = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate(pieces)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token=UNK, bos_token=BOS, eos_token=EOS, pad_token=EOS, padding_side="right"
    )


def random_pipeline(
    scale: int = 1,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    text_encoder: bool = False,
) -> MiniGPT5Pipeline:
    """A pipeline that runs and knows nothing.

    Args:
        text_encoder: whether it has the text encoder, which training needs and the call does not.

    Raises:
        ValueError: for a scale that does not divide the widths.
    """
    parts = empty_parts(scale)
    if not text_encoder:
        del parts["text_encoder"]
    parts: dict[str, Any] = {name: fill_at_random(part, dtype, device) for name, part in parts.items()}
    tokenizer = stand_in_tokenizer()
    if text_encoder:
        parts["tokenizer"] = stand_in_tokenizer()
        parts["tokenizer"].model_max_length = parts["mapper"].config.text_length
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    parts["comprehension"].generation_config = GenerationConfig(**GENERATION, **ends, stop_strings=["###"])
    return MiniGPT5Pipeline(
        processor=MiniGPT5Processor(published_image_processor(IMAGE_SIZE), tokenizer, QUERIES, N_VOKENS, SYSTEM),
        scheduler=PNDMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            skip_prk_steps=True,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        **parts,
    )
