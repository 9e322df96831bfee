"""The settings of the systems' stages: each is understood by its program, and its parts are there."""

import runpy
from functools import cache
from pathlib import Path

import pytest
from families import Families

from minigpt5.readers import add_vokens, reader_of
from minigpt5.readers.systems import SYSTEMS
from minigpt5.training.reading import ReadingModel
from minigpt5.utils.settings import build_settings, read_yaml

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs/readers").rglob("*.yaml"))
PLACES = {"data": "data", "model": "start", "out": "out", "report_to": "null"}
# Of the families of the tests the one that a system is.
FAMILY = {"llava": "composed_llava", "llava-1.5": "composed_llava", "instructblip": "instructblip"}


@cache
def schema(program):
    names = runpy.run_path(str(ROOT / program), run_name="program")
    return names["ProjectionConfig" if "projection" in program else "InstructionConfig"]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: "/".join(path.parts[-2:]))
def test_a_stage_s_settings_fit_its_system(texts, path):
    text = path.read_text()
    program = next(word for word in text.split() if word.endswith(".py"))
    config = build_settings(schema(program), read_yaml(text) | PLACES)
    system = path.parent.name
    model, processor = Families(texts)(FAMILY.get(system, system.replace("-", "_")))
    reader = reader_of(model, add_vokens(model, processor, 4))
    trained = ReadingModel(reader, config.trains, config.lora, config.gradient_checkpointing)
    learns = {name for name, parameter in trained.named_parameters() if parameter.requires_grad}
    assert any("lora_" in name for name in learns) == (config.lora is not None)
    assert learns and (not any("vision_tower" in name for name in learns) or "encoder" in config.trains)


def test_every_system_has_stages():
    folders = {path.parent.name for path in CONFIGS}
    # SPHINX-1k is trained as SPHINX is.
    assert folders == (SYSTEMS.keys() | {"instructblip"}) - {"sphinx-1k"}
