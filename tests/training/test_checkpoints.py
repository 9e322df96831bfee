"""Checkpoints: whole or not at all, the last few and the best kept."""

import errno

import pytest
import torch
from torch import nn

from minigpt5.training.checkpoints import (
    CheckpointError,
    find_checkpoint,
    list_checkpoints,
    load_training_state,
    read_checkpoint,
    save_checkpoint,
    training_state,
)


def test_the_last_few_and_the_best_are_kept(tmp_path):
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, step, {"step": step}, keep=2, best=step == 2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-00000003.pt", "checkpoint-00000004.pt"]
    assert read_checkpoint(find_checkpoint(tmp_path, "latest"))["step"] == 4
    assert read_checkpoint(find_checkpoint(tmp_path, "best"))["step"] == 2
    assert find_checkpoint(tmp_path, "none") is None
    assert read_checkpoint(find_checkpoint(tmp_path, str(tmp_path / "checkpoint-00000003.pt")))["step"] == 3


def test_nothing_to_resume_from(tmp_path):
    assert find_checkpoint(tmp_path, "latest") is None
    with pytest.raises(CheckpointError, match=r"best\.pt"):
        find_checkpoint(tmp_path, "best")


def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, {"step": 1}, keep=2)

    def full(state, file):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left.*checkpoint-00000001\.pt is whole"):
        save_checkpoint(tmp_path, 2, {"step": 2}, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000001.pt"]
    assert read_checkpoint(list_checkpoints(tmp_path)[0]) == {"step": 1}


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "checkpoint-00000001.pt"
    path.write_bytes(b"half a checkpoint")
    with pytest.raises(CheckpointError, match=r"checkpoint-00000001\.pt is not a checkpoint"):
        read_checkpoint(path)


def build():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    module[0].weight.requires_grad_(False)
    groups = [{"params": [module[0].bias], "lr": 0.1}, {"params": list(module[1].parameters()), "lr": 0.2}]
    return module, torch.optim.AdamW(groups)


def test_only_what_trains_is_kept_and_comes_back(tmp_path):
    module, optimizer = build()
    module(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()
    save_checkpoint(tmp_path, 1, training_state(module, optimizer), keep=1)
    state = read_checkpoint(list_checkpoints(tmp_path)[0])
    assert state["parameters"].keys() == {"0.bias", "1.weight", "1.bias"}

    again, fresh = build()
    load_training_state(again, fresh, state)
    for name, parameter in module.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter)
    for here, there in zip(fresh.state_dict()["state"].values(), optimizer.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(here[name], there[name]) for name in there)


def test_a_checkpoint_of_other_settings_is_refused():
    module, optimizer = build()
    state = training_state(module, optimizer)
    module[0].weight.requires_grad_(True)
    with pytest.raises(CheckpointError, match=r"lacks 0\.weight"):
        load_training_state(module, torch.optim.AdamW(module.parameters()), state)
