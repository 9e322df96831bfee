"""Other language models and other diffusion models in their places: each builds a pipeline that reads and paints."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    BloomConfig,
    CohereConfig,
    FalconConfig,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PhiConfig,
    Qwen2Config,
    Qwen3Config,
)

from minigpt5 import MiniGPT4ForConditionalGeneration, MiniGPT5Pipeline, VokenMapper
from minigpt5.readers.generic import next_token_logits
from minigpt5.readers.minigpt4 import embed_prompt, last_hidden_states

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 512}
WIDE = SIZES | {"intermediate_size": 64}
TEXT_CONFIGS = {
    "llama-2": LlamaConfig(**WIDE),
    "llama-3": LlamaConfig(
        **WIDE,
        num_key_value_heads=2,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500_000.0,
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        },
    ),
    "llama-3.2": LlamaConfig(**WIDE, num_key_value_heads=2, tie_word_embeddings=True),
    "phi-2": PhiConfig(**WIDE, partial_rotary_factor=0.5),
    "opt": OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=32),
    "opt-350m": OPTConfig(**SIZES, ffn_dim=64, word_embed_proj_dim=16, do_layer_norm_before=False),
    "qwen-2": Qwen2Config(**WIDE, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen-3": Qwen3Config(**WIDE, num_key_value_heads=2, head_dim=16),
    "mistral": MistralConfig(**WIDE, num_key_value_heads=2, sliding_window=64),
    "gemma-2": Gemma2Config(**WIDE, num_key_value_heads=2, head_dim=8, sliding_window=64, final_logit_softcapping=0.1),
    "cohere": CohereConfig(**WIDE),
    "granite": GraniteConfig(**WIDE, logits_scaling=4.0),
    "gpt-2": GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=512),
    "gpt-neox": GPTNeoXConfig(**WIDE),
    "falcon": FalconConfig(**SIZES, ffn_hidden_size=64),
    "bloom": BloomConfig(hidden_size=32, n_layer=2, n_head=4),
}


def with_language_model(pipe, text_config):
    """The tiny pipeline around another language model, random."""
    config = pipe.comprehension.config
    text = text_config.to_dict() | {"vocab_size": len(pipe.processor.tokenizer)}
    text |= {name: getattr(pipe.processor.tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = type(config)(
        vision_config=config.vision_config.to_dict(),
        qformer_config=config.qformer_config.to_dict(),
        text_config=text,
        num_query_tokens=config.num_query_tokens,
        image_token_index=config.image_token_id,
    )
    torch.manual_seed(0)
    comprehension = MiniGPT4ForConditionalGeneration(config).eval()
    voken_dim = comprehension.get_output_embeddings().in_features
    parts = pipe.components | {
        "comprehension": comprehension,
        "mapper": VokenMapper(voken_dim=voken_dim, text_dim=pipe.mapper.config.text_dim, num_layers=1).eval(),
    }
    return quiet(MiniGPT5Pipeline(**parts, num_inference_steps=1))


def quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def reply(pipe, pictures, **options):
    return pipe(
        ["<ImageHere> What do you see?", "Draw this: a red fox."],
        [pictures[0], None],
        image_mode="always",
        max_new_tokens=3,
        generator=[torch.Generator().manual_seed(seed) for seed in (0, 1)],
        output_type="pt",
        **options,
    )


MAMBA = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8}
MPT = {"d_model": 32, "n_heads": 4, "n_layers": 2}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("cohere", WIDE | {"logit_scale": 0.5}),
        ("falcon_h1", WIDE | MAMBA | {"num_key_value_heads": 2, "lm_head_multiplier": 0.02}),
        ("granite", WIDE | {"logits_scaling": 4.0}),
        ("hyperclovax", WIDE | {"logits_scaling": 0.125}),
        ("mpt", MPT),
        ("mpt", MPT | {"logit_scale": 0.5}),
    ],
)
def test_logits_are_scaled_as_the_model_scales_them(kind, settings):
    if kind not in CONFIG_MAPPING:
        pytest.skip(f"this version of transformers has no {kind}")
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **settings, vocab_size=64)).eval()
    ids = torch.arange(3, 20).unsqueeze(0)
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(next_token_logits(model, hidden), model(input_ids=ids).logits)


@pytest.mark.parametrize("name", TEXT_CONFIGS)
def test_any_language_model_reads_and_paints(tiny_pipe, pictures, tmp_path, name):
    pipe = with_language_model(tiny_pipe, TEXT_CONFIGS[name])
    model, ids = pipe.comprehension, torch.arange(3, 40).unsqueeze(0)
    with torch.no_grad():
        hidden = last_hidden_states(model, embed_prompt(model, ids), torch.ones_like(ids))
        torch.testing.assert_close(next_token_logits(model, hidden), model.language_model(input_ids=ids).logits)

    batch = reply(pipe, pictures)
    assert [len(images) for images in batch.images] == [1, 1]
    # A row of a batch, padded on the left, is the row alone.
    alone = pipe(
        "Draw this: a red fox.",
        image_mode="always",
        max_new_tokens=3,
        generator=torch.Generator().manual_seed(1),
        output_type="pt",
    )
    assert alone.text[0] == batch.text[1]
    torch.testing.assert_close(alone.images[0][0], batch.images[1][0], atol=1e-4, rtol=0)

    pipe.save_pretrained(tmp_path)
    again = reply(quiet(MiniGPT5Pipeline.from_pretrained(tmp_path)), pictures)
    torch.testing.assert_close(again.images[0][0], batch.images[0][0], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("text_length", "text_dim"), [(77, 48), (12, 64)])
def test_any_diffusion_model_is_conditioned_in_its_own_width_and_length(tiny_pipe, pictures, text_length, text_dim):
    unet = UNet2DConditionModel.from_config(tiny_pipe.unet.config, cross_attention_dim=text_dim)
    hidden = tiny_pipe.mapper.config.voken_dim
    mapper = VokenMapper(voken_dim=hidden, text_dim=text_dim, text_length=text_length, num_layers=1)
    pipe = MiniGPT5Pipeline(**tiny_pipe.components | {"unet": unet.eval(), "mapper": mapper.eval()})
    seen = []
    unet.register_forward_hook(
        lambda _, args, kwargs, output: seen.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )
    output = reply(quiet(pipe), pictures, num_inference_steps=1)
    assert [len(images) for images in output.images] == [1, 1]
    assert {features.shape[1:] for features in seen} == {(text_length, text_dim)}
