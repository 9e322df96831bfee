"""The systems that the programs' arguments name."""

import pytest

from minigpt5.evaluation.baselines import GILL, Divter, TwoStage, ZeroShotDiffusion
from minigpt5.evaluation.systems import EvaluationConfig, check_paths, load_system, settings_of
from minigpt5.loading import revision
from minigpt5.storyworld import miniature
from minigpt5.utils.programs import ProgramError
from minigpt5.weights import SHIPPED


def config(**given):
    settings = EvaluationConfig(data="d", out="o", **given)
    settings.layout = "cc3m"
    return settings


def test_baselines_are_built_of_the_model_s_parts(tmp_path):
    miniature.build_unet().save_pretrained(tmp_path / "unet")
    miniature.build_mapper().save_pretrained(tmp_path / "mapper")
    painter = load_system(config(baseline="diffusion", unet=tmp_path / "unet"))
    assert isinstance(painter, ZeroShotDiffusion) and painter.painter.unet is not painter.pipe.unet
    assert isinstance(load_system(config(baseline="two-stage")), TwoStage)
    divter = load_system(config(baseline="divter", mark="Here it is:"))
    assert isinstance(divter, Divter) and divter.mark == "Here it is:"
    gill = load_system(config(baseline="gill", mapper=tmp_path / "mapper"))
    own = load_system(config())
    assert isinstance(gill, GILL) and not gill.mapper.queries.equal(own.mapper.queries)


def test_an_adapter_is_attached_and_recorded(tmp_path, monkeypatch):
    attached = []
    monkeypatch.setattr("minigpt5.pipeline.MiniGPT5Pipeline.load_adapter", lambda self, folder: attached.append(folder))
    (tmp_path / "adapter.json").write_text("{}")
    load_system(config(adapter=tmp_path))
    assert attached == [tmp_path]
    told = settings_of(config(adapter=tmp_path))["adapter"]
    assert told == {"name": str(tmp_path), "revision": revision(tmp_path)}


def test_settings_say_which_model_exactly_and_what_it_takes_by_itself():
    settings = settings_of(config(guidance_scale=4))
    assert settings["model"] == {"name": "storyworld-mini", "revision": revision(SHIPPED / "storyworld-mini")}
    assert (settings["num_inference_steps"], settings["guidance_scale"]) == (6, 4.0)
    assert settings["versions"].keys() >= {"minigpt5", "torch", "diffusers", "transformers"}


def test_a_part_that_the_system_does_not_take_is_refused(tmp_path):
    with pytest.raises(ValueError, match="mapper goes with baseline gill, not with diffusion"):
        config(baseline="diffusion", mapper=tmp_path)


@pytest.mark.parametrize("name", ["unet", "mapper", "inception", "sentences", "hps", "pick_score"])
def test_what_is_named_and_not_there_is_told_before_anything_is_opened(name, tmp_path):
    baseline = {"unet": "two-stage", "mapper": "gill"}.get(name)
    check_paths(config(baseline=baseline, **{name: tmp_path}))
    with pytest.raises(ProgramError, match=f"^{name}: there is no .*nowhere"):
        check_paths(config(baseline=baseline, **{name: tmp_path / "nowhere"}))


def test_what_does_not_open_is_named(tmp_path):
    for name, baseline in (("unet", "diffusion"), ("mapper", "gill")):
        with pytest.raises(ProgramError, match=rf"^cannot open the \w+ {tmp_path}: "):
            load_system(config(baseline=baseline, **{name: tmp_path}))
    for name, content in (("adapter.json", "{"), ("model_index.json", "{")):
        (tmp_path / name).write_text(content)
    with pytest.raises(ProgramError, match=f"^cannot open the adapter {tmp_path}: "):
        load_system(config(adapter=tmp_path))
    for call in (load_system, settings_of):
        with pytest.raises(ProgramError, match=f"^cannot open the model {tmp_path}: "):
            call(config(model=str(tmp_path)))


def test_a_model_and_an_adapter_are_looked_for_when_they_are_named(tmp_path):
    for name in ("nowhere", str(tmp_path), "a/b/c"):
        with pytest.raises(ValueError, match=f"unknown model '{name}'; shipped with the package: storyworld-mini"):
            config(model=name)
    with pytest.raises(ValueError, match=f"adapter: {tmp_path} is not the folder of one: it has no adapter.json"):
        config(adapter=tmp_path)


def test_every_process_has_something_to_ask(monkeypatch):
    state = type("State", (), {"num_processes": 3})
    monkeypatch.setattr("minigpt5.evaluation.systems.process_state", lambda: state)
    assert config(batch_size=3).batch_size == 3
    with pytest.raises(ValueError, match="batch_size is 2, of which 3 processes cannot have one each"):
        config(batch_size=2)


def test_a_revision_changes_with_the_weights(tmp_path):
    miniature.build_unet().save_pretrained(tmp_path)
    before = revision(tmp_path)
    assert before == revision(tmp_path) and before.startswith("sha256:")
    miniature.build_unet().save_pretrained(tmp_path)
    assert revision(tmp_path) != before
    for name in ("owner/none", tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match="no folder"):
            revision(name)
