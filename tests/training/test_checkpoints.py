"""Checkpoints: whole or not at all, the last few and the best kept."""

import errno
import random

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
    set_aside,
    training_state,
)


def state(step):
    """What a run saves; its weight is the step."""
    counters = {"step": step, "batches": step, "skipped": 0, "best": None, "processes": 1}
    tensors = {"parameters": {"a.weight": torch.full((3, 2), float(step))}, "optimizer": {"state": {0: torch.ones(2)}}}
    return tensors | {"ema": None, "scaler": None, "counters": counters, "settings": {}, "frozen": {}, "rows": {}}


def step_of(path):
    return read_checkpoint(path)["counters"]["step"]


def test_the_last_few_and_the_best_are_kept(tmp_path):
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, step, state(step), keep=2, best=step == 2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-00000003.pt", "checkpoint-00000004.pt"]
    assert step_of(find_checkpoint(tmp_path, "latest")) == 4
    assert step_of(find_checkpoint(tmp_path, "best")) == 2
    assert find_checkpoint(tmp_path, "none") is None
    assert step_of(find_checkpoint(tmp_path, str(tmp_path / "checkpoint-00000003.pt"))) == 3


def test_a_checkpoint_that_says_it_is_the_best_is_kept_as_such_whenever_the_run_is_killed(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, state(1), keep=2, best=True)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.link", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, 2, state(2), keep=2, best=True)
    assert step_of(find_checkpoint(tmp_path, "latest")) == 1 and step_of(find_checkpoint(tmp_path, "best")) == 2
    assert set_aside(tmp_path, 1) == []


def test_what_a_kill_left_half_written_goes_with_the_next_checkpoint(tmp_path):
    for name in (".checkpoint-00000001.pt.0123456789ab.tmp", ".best.pt.0123456789ab.tmp", ".mine.tmp"):
        (tmp_path / name).write_bytes(b"half")
    save_checkpoint(tmp_path, 2, state(2), keep=2, best=True)
    assert {path.name for path in tmp_path.iterdir()} == {".mine.tmp", "best.pt", "checkpoint-00000002.pt"}


def test_the_best_is_kept_where_there_are_no_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr("os.link", no_links)
    save_checkpoint(tmp_path, 1, state(1), keep=1, best=True)
    assert step_of(tmp_path / "best.pt") == 1


def test_nothing_to_resume_from(tmp_path):
    assert find_checkpoint(tmp_path, "latest") is None
    for resume in ("best", str(tmp_path), ""):
        with pytest.raises(CheckpointError, match="there is no checkpoint"):
            find_checkpoint(tmp_path, resume)


def test_a_run_that_goes_back_sets_later_checkpoints_aside(tmp_path):
    for step in (2, 4, 6):
        save_checkpoint(tmp_path, step, state(step), keep=3, best=step == 4)
    assert [path.name for path in set_aside(tmp_path, 6)] == []
    assert [path.name for path in set_aside(tmp_path, 4)] == ["checkpoint-00000006.pt.old"]
    assert [path.name for path in list_checkpoints(tmp_path)] == ["checkpoint-00000002.pt", "checkpoint-00000004.pt"]
    assert [path.name for path in set_aside(tmp_path, 3)] == ["checkpoint-00000004.pt.old", "best.pt.old"]
    assert step_of(tmp_path / "best.pt.old") == 4
    save_checkpoint(tmp_path, 2, state(2), keep=3, best=True)
    assert {path.name for path in set_aside(tmp_path, 0)} == {"checkpoint-00000002.pt.old", "best.pt.old"}


def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, state(1), keep=2)

    def full(state, file):
        file.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(CheckpointError, match=r"No space left.*checkpoint-00000001\.pt is whole"):
        save_checkpoint(tmp_path, 2, state(2), keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000001.pt"]
    assert step_of(list_checkpoints(tmp_path)[0]) == 1


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_neither_saved_nor_read(tmp_path, number):
    save_checkpoint(tmp_path, 1, state(1), keep=2)
    spoilt = state(2)
    spoilt["optimizer"]["state"][0][1] = number
    with pytest.raises(CheckpointError, match=r"step 2 are not saved.*optimizer\.state\.0; .*00001\.pt is whole"):
        save_checkpoint(tmp_path, 2, spoilt, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000001.pt"]
    torch.save(spoilt, tmp_path / "checkpoint-00000002.pt")
    with pytest.raises(CheckpointError, match=r"not finite in optimizer\.state\.0"):
        read_checkpoint(tmp_path / "checkpoint-00000002.pt")


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return one == other


def test_whichever_byte_flips_a_broken_checkpoint_is_never_taken_for_a_whole_one(tmp_path):
    save_checkpoint(tmp_path, 1, state(1), keep=2)
    whole = (tmp_path / "checkpoint-00000001.pt").read_bytes()
    path, told = tmp_path / "checkpoint-00000002.pt", []
    for place in random.Random(0).sample(range(len(whole)), 150):
        spoilt = bytearray(whole)
        spoilt[place] ^= 1 << place % 8
        path.write_bytes(spoilt)
        try:
            assert same(read_checkpoint(path), state(1))
        except CheckpointError as error:
            told.append(str(error))
    # The rest are bytes between the records, which nobody reads.
    assert len(told) > 50
    assert all("checkpoint-00000001.pt is whole: move checkpoint-00000002.pt away" in line for line in told)
    assert any("checksum" in line for line in told)


@pytest.mark.parametrize("content", [b"", b"half a checkpoint", b"PK\x03\x04" + bytes(100)])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    path = tmp_path / "checkpoint-00000001.pt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"00001\.pt is broken, or no checkpoint.*no whole one before it"):
        read_checkpoint(path)
    torch.save({"step": 3}, path)
    with pytest.raises(CheckpointError, match="has not the entries"):
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
    save_checkpoint(tmp_path, 1, state(1) | training_state(module, optimizer), keep=1)
    saved = read_checkpoint(list_checkpoints(tmp_path)[0])
    assert saved["parameters"].keys() == {"0.bias", "1.weight", "1.bias"}

    again, fresh = build()
    load_training_state(again, fresh, saved)
    for name, parameter in module.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter)
    for here, there in zip(fresh.state_dict()["state"].values(), optimizer.state_dict()["state"].values(), strict=True):
        assert all(torch.equal(here[name], there[name]) for name in there)


def test_a_checkpoint_of_other_settings_is_refused():
    module, optimizer = build()
    saved = training_state(module, optimizer)
    module[0].weight.requires_grad_(True)
    with pytest.raises(CheckpointError, match=r"lacks 0\.weight"):
        load_training_state(module, torch.optim.AdamW(module.parameters()), saved)
    module, optimizer = build()
    saved["parameters"]["1.bias"] = torch.zeros(5)
    with pytest.raises(CheckpointError, match=r"has 1\.bias as \[5\] instead of \[2\]"):
        load_training_state(module, optimizer, saved)
