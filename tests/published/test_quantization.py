"""The language model in 8 or 4 bits, as docs/published-model.md shows it; needs the extra `quantization`."""

import pytest
import torch
from diffusers import PipelineQuantizationConfig
from transformers import BitsAndBytesConfig, TorchAoConfig

from minigpt5 import MiniGPT5Pipeline

WHOLE = ["vision_model", "qformer", "language_projection", "lm_head"]


def torchao():
    quantization = pytest.importorskip("torchao.quantization")
    return TorchAoConfig(quantization.Int8WeightOnlyConfig(version=2), modules_to_not_convert=WHOLE)


def bitsandbytes():
    pytest.importorskip("bitsandbytes")
    return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=WHOLE)


def bitsandbytes_4():
    pytest.importorskip("bitsandbytes")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=WHOLE,
    )


@pytest.mark.parametrize(("config", "error"), [(torchao, 0.1), (bitsandbytes, 0.1), (bitsandbytes_4, 0.4)])
def test_the_language_model_runs_in_fewer_bits(tiny_folder, pictures, config, error):
    ids = torch.arange(3, 40).unsqueeze(0)
    logits = []
    for options in ({}, {"quantization_config": PipelineQuantizationConfig(quant_mapping={"comprehension": config()})}):
        pipe = MiniGPT5Pipeline.from_pretrained(tiny_folder, dtype=torch.bfloat16, **options)
        pipe.set_progress_bar_config(disable=True)
        with torch.no_grad():
            logits.append(pipe.comprehension.language_model(input_ids=ids).logits.float())
    assert 0 < (logits[1] - logits[0]).abs().max() < error * logits[0].abs().max()
    assert {p.dtype for p in pipe.comprehension.vision_model.parameters()} == {torch.bfloat16}
    reply = pipe("<ImageHere> What is next?", pictures[0], image_mode="always", max_new_tokens=2)
    assert len(reply.images[0]) == 1
