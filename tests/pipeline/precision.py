"""Weights of fewer bits: half precision, parts of different precision, layerwise casting."""

import pytest
import torch
from diffusers.hooks import apply_layerwise_casting

from .base import latents, paint, same

HALVES = [torch.float16, torch.bfloat16]
# Small, for the sake of fp16 convolutions on the CPU.
SMALL = {"height": 32, "width": 32, "num_inference_steps": 1}


def modules(pipe):
    return {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}


class PrecisionMixin:
    @pytest.mark.parametrize("dtype", HALVES)
    @pytest.mark.parametrize("how", ["from_pretrained", "to"])
    def test_half_precision_runs(self, opened, pictures, dtype, how):
        pipe = opened().to(dtype) if how == "to" else opened(dtype=dtype)
        assert {pipe.mapper.dtype, pipe.unet.dtype, pipe.vae.dtype, pipe.comprehension.language_model.dtype} == {dtype}
        output = paint(pipe, self.picture_prompt, images=pictures[0], output_type="pt", **SMALL)
        assert output.images[0][0].dtype == torch.float32 and output.images[0][0].isfinite().all()

    @pytest.mark.parametrize("dtype", HALVES)
    def test_a_half_precision_folder_opens_as_either(self, opened, dtype, tmp_path):
        pipe = opened(dtype=dtype)
        pipe.save_pretrained(tmp_path)
        whole = type(pipe).from_pretrained(tmp_path)
        assert {part.dtype for part in modules(whole).values()} == {torch.float32}
        assert torch.equal(whole.mapper.queries.to(dtype), pipe.mapper.queries)
        again = type(pipe).from_pretrained(tmp_path, dtype=dtype)
        assert again.mapper.dtype == dtype and torch.equal(again.mapper.queries, pipe.mapper.queries)

    @pytest.mark.parametrize("name", ["comprehension", "mapper", "unet", "vae"])
    def test_parts_may_differ_in_precision(self, opened, pictures, name):
        pipe = opened()
        getattr(pipe, name).to(torch.bfloat16)
        output = paint(pipe, self.picture_prompt, images=pictures[0], output_type="pt", **SMALL)
        assert output.images[0][0].isfinite().all()

    def test_weights_load_in_fp32_by_default(self, opened):
        assert {part.dtype for part in modules(opened()).values()} == {torch.float32}

    def test_what_was_opened_in_inference_mode_replies_as_ever(self, pipe, opened):
        with torch.inference_mode():
            own = opened()
            chat = own.chat()
            chat.reply(self.prompt, image_mode="always", max_new_tokens=3)
            again = paint(own)
        assert same(again, paint(pipe)) and len(chat.cache)

    def test_each_part_may_be_opened_in_a_precision_of_its_own(self, opened):
        pipe = opened(dtype={"unet": torch.bfloat16, "default": torch.float32})
        assert pipe.unet.dtype == torch.bfloat16 and pipe.mapper.dtype == torch.float32

    @pytest.mark.parametrize("name", ["comprehension", "mapper", "unet", "vae"])
    def test_layerwise_casting_is_as_exact_as_what_is_stored(self, opened, pictures, name):
        """Weights that bf16 holds are the same when they are stored as such, so the reply is."""
        pipe = opened()
        part = getattr(pipe, name)
        part.to(torch.bfloat16).to(torch.float32)
        whole = paint(pipe, self.picture_prompt, images=pictures[0])
        apply_layerwise_casting(part, torch.bfloat16, torch.float32)
        stored = {parameter.dtype for parameter in part.parameters()}
        assert torch.bfloat16 in stored and same(paint(pipe, self.picture_prompt, images=pictures[0]), whole)
        assert {parameter.dtype for parameter in part.parameters()} == stored

    def test_layerwise_casting_to_8_bits_changes_little(self, opened):
        pipe = opened()
        whole = latents(pipe)
        for name in ("mapper", "unet"):
            getattr(pipe, name).enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn)
        assert (latents(pipe) - whole).abs().mean() < 0.2 * whole.abs().mean()
