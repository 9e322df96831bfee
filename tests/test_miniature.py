"""The model that ships with the package."""

import pytest
import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.storyworld.examine import examine_captions, examine_painting, sample_scenes
from minigpt5.weights import SHIPPED, shipped_model, shipped_models

MINIATURE = "storyworld-mini"


@pytest.fixture(scope="module")
def miniature():
    pipe = MiniGPT5Pipeline.from_pretrained(MINIATURE)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_the_shipped_model_is_found_by_its_name_and_no_other_is():
    assert shipped_models() == [MINIATURE]
    assert shipped_model(MINIATURE) == SHIPPED / MINIATURE
    assert shipped_model("owner/repository") == "owner/repository"


def test_its_weights_are_fp16_safetensors_of_at_most_40_mb():
    weights = [path for path in SHIPPED.rglob("*") if path.suffix in (".safetensors", ".bin", ".pt", ".ckpt")]
    assert {path.suffix for path in weights} == {".safetensors"}
    assert sum(path.stat().st_size for path in weights) <= 40e6


def test_it_is_read_as_fp32(miniature):
    assert miniature.dtype == torch.float32


def test_it_sees_and_paints_what_it_is_told(miniature):
    scenes = sample_scenes(12, companion=False)
    assert examine_captions(miniature.reader, scenes) >= 0.75
    assert examine_painting(miniature, scenes)["all"] >= 0.5


def test_forwards_are_one_a_text_token_one_a_block_and_one_a_denoising_step(miniature, count_calls):
    language = count_calls(miniature.comprehension.language_model.base_model)
    unet = count_calls(miniature.unet)
    reply = miniature("Draw this: a red fox in the forest at night.", image_mode="always")
    tokens = miniature.processor.tokenizer(reply.text[0], add_special_tokens=False)["input_ids"]
    # The end of the reply is chosen too, with the last forward.
    assert len(reply.images[0]) == 1 and len(unet) == miniature.config.num_inference_steps
    assert len(language) == len(tokens) + 1 + 1
