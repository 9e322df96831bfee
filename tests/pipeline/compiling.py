"""`torch.compile` of the parts."""

import pytest
import torch

from .base import paint, same

# What is tested is that the parts can be traced and replaced, not what a backend makes of them.
OPTIONS = {"backend": "aot_eager"}


class CompileMixin:
    def test_what_computes_most_is_compiled_in_its_place(self, opened, monkeypatch):
        pipe, compiled = opened(), []
        monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: compiled.append((module, options)))
        pipe.compile(**OPTIONS)
        assert compiled == [
            (pipe.unet, OPTIONS),
            (pipe.vae.decoder, OPTIONS),
            (pipe.comprehension.language_model.model, OPTIONS),
        ]

    @pytest.mark.slow
    def test_a_compiled_pipeline_replies_and_is_saved_as_before(self, opened, pictures, tmp_path):
        pipe, graphs = opened(), []

        def backend(graph, inputs):
            graphs.append(graph)
            return graph.forward

        options = {"output_type": "pt", "max_new_tokens": 8}
        whole = paint(pipe, self.picture_prompt, pictures[0], **options)
        pipe.compile(backend=backend)
        assert same(paint(pipe, self.picture_prompt, pictures[0], **options), whole, atol=1e-4)
        made = len(graphs)
        assert made >= 3
        # A second reply brings nothing new.
        assert same(paint(pipe, self.picture_prompt, pictures[0], **options), whole, atol=1e-4)
        assert len(graphs) == made
        pipe.save_pretrained(tmp_path)
        assert same(paint(type(pipe).from_pretrained(tmp_path), self.picture_prompt, pictures[0], **options), whole)

    def test_what_was_read_in_inference_mode_is_not_written_to_outside(self, opened, pictures, monkeypatch):
        pipe = opened()
        monkeypatch.setattr(type(pipe.reader), "_reads_in_fixed_room", True)
        prompt, options = self.picture_prompt, {"output_type": "pt", "max_new_tokens": 2}
        with torch.inference_mode():
            inside = paint(pipe, prompt, pictures[0], **options)
        assert same(paint(pipe, prompt, pictures[0], **options), inside)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["mapper", "unet"])
    def test_compiled_parts_reply_as_they_did(self, opened, name):
        pipe = opened()
        whole = paint(pipe)
        setattr(pipe, name, torch.compile(getattr(pipe, name), **OPTIONS))
        assert same(paint(pipe), whole, atol=1e-4)

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
