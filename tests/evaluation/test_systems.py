"""The systems that the programs' arguments name."""

import pytest

from minigpt5.evaluation.baselines import GILL, Divter, TwoStage, ZeroShotDiffusion
from minigpt5.evaluation.systems import evaluation_arguments, load_system, revision, settings_of
from minigpt5.storyworld import miniature
from minigpt5.weights import SHIPPED


def arguments(*given):
    return evaluation_arguments("", "cc3m", clip="ViT-L/14").parse_args(["--data", "d", "--out", "o", *map(str, given)])


def test_baselines_are_built_of_the_model_s_parts(tmp_path):
    miniature.build_unet().save_pretrained(tmp_path / "unet")
    miniature.build_mapper().save_pretrained(tmp_path / "mapper")
    painter = load_system(arguments("--baseline", "diffusion", "--unet", tmp_path / "unet"))
    assert isinstance(painter, ZeroShotDiffusion) and painter.painter.unet is not painter.pipe.unet
    assert isinstance(load_system(arguments("--baseline", "two-stage")), TwoStage)
    divter = load_system(arguments("--baseline", "divter", "--mark", "Here it is:"))
    assert isinstance(divter, Divter) and divter.mark == "Here it is:"
    gill = load_system(arguments("--baseline", "gill", "--mapper", tmp_path / "mapper"))
    own = load_system(arguments())
    assert isinstance(gill, GILL) and not gill.mapper.queries.equal(own.mapper.queries)


def test_an_adapter_is_attached_and_recorded(tmp_path, monkeypatch):
    attached = []
    monkeypatch.setattr("minigpt5.pipeline.MiniGPT5Pipeline.load_adapter", lambda self, folder: attached.append(folder))
    (tmp_path / "adapter.json").write_text("{}")
    load_system(arguments("--adapter", tmp_path))
    assert attached == [tmp_path]
    told = settings_of(arguments("--adapter", tmp_path))["adapter"]
    assert told == {"name": str(tmp_path), "revision": revision(tmp_path)}


def test_settings_say_which_model_exactly_and_what_it_takes_by_itself():
    settings = settings_of(arguments("--guidance-scale", 4))
    assert settings["model"] == {"name": "storyworld-mini", "revision": revision(SHIPPED / "storyworld-mini")}
    assert (settings["num_inference_steps"], settings["guidance_scale"]) == (20, 4.0)
    assert settings["versions"].keys() >= {"minigpt5", "torch", "diffusers", "transformers"}


def test_a_part_that_the_system_does_not_take_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--mapper goes with --baseline gill"):
        settings_of(arguments("--baseline", "diffusion", "--mapper", tmp_path))


def test_a_revision_changes_with_the_weights(tmp_path):
    miniature.build_unet().save_pretrained(tmp_path)
    before = revision(tmp_path)
    assert before == revision(tmp_path) and before.startswith("sha256:")
    miniature.build_unet().save_pretrained(tmp_path)
    assert revision(tmp_path) != before
    with pytest.raises(FileNotFoundError, match="no folder"):
        revision("owner/none")
