"""`torch.compile` of the parts."""

import pytest
import torch

from .base import paint, same

# What is tested is that the parts can be traced and replaced, not what a backend makes of them.
OPTIONS = {"backend": "aot_eager"}


class CompileMixin:
    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["mapper", "unet"])
    def test_compiled_parts_reply_as_they_did(self, opened, name):
        pipe = opened()
        whole = paint(pipe)
        setattr(pipe, name, torch.compile(getattr(pipe, name), **OPTIONS))
        assert same(paint(pipe), whole, atol=1e-4)

    @pytest.mark.slow
    def test_compiled_reading_and_decoding_reply_as_they_did(self, opened, pictures):
        pipe = opened()
        whole = paint(pipe, self.picture_prompt, pictures[0], output_type="pt")
        pipe.comprehension.language_model.compile(**OPTIONS)
        pipe.comprehension.vision_model.compile(**OPTIONS)
        pipe.vae.decoder.compile(**OPTIONS)
        assert same(paint(pipe, self.picture_prompt, pictures[0], output_type="pt"), whole, atol=1e-4)

    def test_repeated_blocks_of_the_mapper_are_compiled_in_one_piece(self, opened):
        pipe = opened()
        whole = paint(pipe)
        pipe.mapper.compile_repeated_blocks(fullgraph=True, **OPTIONS)
        assert same(paint(pipe), whole, atol=1e-4)

    def test_compiled_parts_are_saved_as_what_they_are(self, opened, tmp_path):
        pipe = opened()
        whole = paint(pipe)
        pipe.mapper = torch.compile(pipe.mapper, **OPTIONS)
        pipe.save_pretrained(tmp_path)
        again = type(pipe).from_pretrained(tmp_path)
        assert same(paint(again), whole)
