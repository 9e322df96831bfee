"""Folders and hub: what is saved opens again, and with it comes our card."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines import pipeline_utils
from diffusers.utils import hub_utils
from huggingface_hub import CommitInfo, RepoUrl
from peft import LoraConfig, inject_adapter_in_model

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
        assert index["mapper"] == ["minigpt5", self.connector]
        assert index["processor"] == ["minigpt5", "MiniGPT5Processor"]
        assert index["text_encoder"] == index["tokenizer"] == [None, None]
        suffixes = {path.suffix for path in folder.rglob("*") if path.is_file()}
        assert ".safetensors" in suffixes and not suffixes & {".bin", ".pt", ".pth", ".ckpt", ".pkl"}
        assert "MiniGPT5Pipeline.from_pretrained" in (folder / "README.md").read_text()

    def test_saving_keeps_a_card_that_is_there(self, pipe, tmp_path):
        (tmp_path / "README.md").write_text("mine")
        pipe.save_pretrained(tmp_path)
        assert (tmp_path / "README.md").read_text() == "mine"

    def test_pickled_weights_are_refused_before_anything_is_written(self, pipe, tmp_path):
        with pytest.raises(ValueError, match="safe_serialization=False would pickle the weights"):
            pipe.save_pretrained(tmp_path / "model", safe_serialization=False)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["unet", "comprehension"])
    def test_an_adapter_that_the_folder_could_not_hold_is_refused(self, opened, name, tmp_path):
        pipe, config = opened(), LoraConfig(target_modules=["to_q", "q_proj"], init_lora_weights=False)
        inject_adapter_in_model(config, getattr(pipe, name))
        with pytest.raises(ValueError, match=f"a LoRA adapter is attached to {name}, which a pipeline folder cannot"):
            pipe.save_pretrained(tmp_path / "model")
        assert not list(tmp_path.iterdir())

    def test_a_painter_s_adapter_that_is_folded_in_is_saved(self, opened, tmp_path):
        pipe = opened()
        pipe.unet.add_adapter(LoraConfig(target_modules=["to_q"], init_lora_weights=False))
        pipe.painter.fuse_lora()
        pipe.painter.unload_lora_weights()
        pipe.save_pretrained(tmp_path)
        assert same(paint(MiniGPT5Pipeline.from_pretrained(tmp_path)), paint(pipe))

    def test_a_variant_is_saved_and_opened_by_its_name(self, pipe, tmp_path):
        pipe.save_pretrained(tmp_path, variant="ema")
        again = MiniGPT5Pipeline.from_pretrained(tmp_path, variant="ema")
        assert (tmp_path / "mapper/diffusion_pytorch_model.ema.safetensors").exists()
        assert torch.equal(*(next(one.mapper.parameters()) for one in (again, pipe)))
        assert torch.equal(again.comprehension.query_tokens, pipe.comprehension.query_tokens)

    def test_what_was_saved_in_other_shards_is_gone(self, opened, tmp_path):
        pipe = opened()
        for size in ("2MB", "10GB", "1MB"):
            with torch.no_grad():
                for part in (pipe.comprehension, pipe.unet):
                    for weight in part.parameters():
                        weight.mul_(1.5)
            pipe.save_pretrained(tmp_path, max_shard_size=size)
            pipe.save_pretrained(tmp_path, variant="fp16", max_shard_size=size)
            for variant in (None, "fp16"):
                again = type(pipe).from_pretrained(tmp_path, variant=variant)
                for name in ("comprehension", "unet"):
                    own, told = (getattr(each, name).state_dict() for each in (pipe, again))
                    assert all(torch.equal(own[key], told[key]) for key in own)

    def test_diffusers_opens_the_folder_without_being_told_the_class(self, pipe, folder):
        again = DiffusionPipeline.from_pretrained(folder)
        again.set_progress_bar_config(disable=True)
        assert type(again) is MiniGPT5Pipeline and same(paint(again), paint(pipe))

    @pytest.fixture
    def hub(self, monkeypatch):
        """What was sent, by repository and file, of files that are no weights."""
        sent = {}

        def create_repo(repo_id, **_):
            return RepoUrl(f"https://huggingface.co/user/{repo_id.removeprefix('user/')}")

        def upload_folder(repo_id, folder_path, commit_message, **_):
            texts = {path for path in Path(folder_path).rglob("*") if path.suffix in (".json", ".md")}
            sent[repo_id] = {str(path.relative_to(folder_path)): path.read_text() for path in texts}
            return CommitInfo(f"https://huggingface.co/{repo_id}/commit/0", commit_message, "", "0")

        for module in (hub_utils, pipeline_utils):
            monkeypatch.setattr(module, "create_repo", create_repo)
        monkeypatch.setattr(hub_utils, "upload_folder", upload_folder)
        return sent

    def test_pushing_sends_our_card(self, pipe, hub):
        pipe.push_to_hub("user/fox")
        card = hub["user/fox"]["README.md"]
        assert 'MiniGPT5Pipeline.from_pretrained("user/fox")' in card and "pipeline_tag: any-to-any" in card
        assert json.loads(hub["user/fox"]["model_index.json"])["mapper"] == ["minigpt5", self.connector]

    def test_saving_may_push_the_folder_under_its_name(self, pipe, hub, tmp_path):
        pipe.save_pretrained(tmp_path / "fox", push_to_hub=True)
        assert 'MiniGPT5Pipeline.from_pretrained("user/fox")' in hub["user/fox"]["README.md"]
        assert hub["user/fox"]["README.md"] == (tmp_path / "fox/README.md").read_text()

    def test_pushing_keeps_a_card_that_is_there(self, pipe, hub, tmp_path):
        (tmp_path / "README.md").write_text("mine")
        pipe.save_pretrained(str(tmp_path), push_to_hub=True, repo_id="user/hare")
        assert hub["user/hare"]["README.md"] == (tmp_path / "README.md").read_text() == "mine"

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
