"""Folders and hub: what is saved opens again, and with it comes our card."""

import json

import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.storyworld import miniature

from .base import paint, same


class SavingMixin:
    def test_saving_and_loading_keeps_the_reply(self, pipe, opened):
        again = opened()
        assert same(paint(again), paint(pipe))
        assert again.config.guidance_scale == 2.5 and again.config.num_inference_steps == 2
        assert again.decoding_config() == pipe.decoding_config()

    def test_the_folder_records_stable_names_and_safe_weights(self, folder):
        index = json.loads((folder / "model_index.json").read_text())
        assert index["mapper"] == ["minigpt5", "VokenMapper"]
        assert index["processor"] == ["minigpt5", "MiniGPT5Processor"]
        assert index["text_encoder"] == index["tokenizer"] == [None, None]
        suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert ".safetensors" in suffixes and not suffixes & {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
        assert "MiniGPT5Pipeline.from_pretrained" in (folder / "README.md").read_text()

    def test_saving_keeps_a_card_that_is_there(self, pipe, tmp_path):
        (tmp_path / "README.md").write_text("mine")
        pipe.save_pretrained(tmp_path)
        assert (tmp_path / "README.md").read_text() == "mine"

    def test_optional_components_are_saved_when_given(self, pipe, texts, tmp_path):
        tokenizer = miniature.build_tokenizer(texts, lowercase=True, max_length=miniature.TEXT_LENGTH)
        encoder = miniature.build_text_encoder(tokenizer).eval()
        MiniGPT5Pipeline.from_pipe(pipe, text_encoder=encoder, tokenizer=tokenizer).save_pretrained(tmp_path)
        again = MiniGPT5Pipeline.from_pretrained(tmp_path)
        ids = tokenizer("a red fox", return_tensors="pt")["input_ids"]
        assert again.tokenizer("a red fox")["input_ids"] == ids[0].tolist()
        with torch.no_grad():
            assert torch.equal(again.text_encoder(ids).last_hidden_state, encoder(ids).last_hidden_state)

    def test_components_rebuild_the_pipeline(self, pipe):
        again = MiniGPT5Pipeline(**pipe.components)
        again.set_progress_bar_config(disable=True)
        # As everywhere in diffusers, settings that are no components start from the class's defaults.
        assert again.config.guidance_scale == 7.5 and again.config.num_inference_steps == 50
        given = {"guidance_scale": 2.5, "num_inference_steps": 2}
        assert same(paint(again, **given), paint(pipe))

    def test_from_pipe_keeps_parts_and_settings(self, pipe):
        again = MiniGPT5Pipeline.from_pipe(pipe)
        assert all(again.components[name] is part for name, part in pipe.components.items())
        assert again.config.guidance_scale == 2.5 and again.config.num_inference_steps == 2
