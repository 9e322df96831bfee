"""The launcher's settings for many devices are what accelerate can read."""

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

FOLDER = Path(__file__).parents[2] / "configs/accelerate"
EXPECTED = {
    "one_gpu": ("NO", 1, 1),
    "ddp_8_gpus": ("MULTI_GPU", 8, 1),
    "two_nodes": ("MULTI_GPU", 16, 2),
    "fsdp2": ("FSDP", 8, 1),
    "zero2": ("DEEPSPEED", 8, 1),
    "zero3_offload": ("DEEPSPEED", 8, 1),
}


def test_each_file_is_expected():
    assert {path.stem for path in FOLDER.glob("*.yaml")} == EXPECTED.keys()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_says_what_its_name_says(name):
    config = load_config_from_file(str(FOLDER / f"{name}.yaml"))
    assert (config.distributed_type.value, config.num_processes, config.num_machines) == EXPECTED[name]
    assert config.mixed_precision == "bf16"
    stage = config.deepspeed_config.get("zero_stage")
    assert stage == {"zero2": 2, "zero3_offload": 3}.get(name)
    assert config.fsdp_config.get("fsdp_version") == (2 if name == "fsdp2" else None)
