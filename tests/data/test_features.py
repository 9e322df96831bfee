"""Features of frozen parts, computed once."""

import logging
import multiprocessing
import os

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from torch import nn

from minigpt5.data.features import FeatureCache, content_key, part_key

KEYS = [content_key(text) for text in ("a", "b", "c", "d", "e")]


class Counted:
    """Computes what stands for the entry of each key, and notes what it was asked for."""

    def __init__(self, keys):
        self.keys, self.asked = keys, []

    def __call__(self, missing):
        self.asked.append(missing)
        return torch.stack([entry(self.keys[place]) for place in missing])


def entry(key):
    return torch.full((2, 3), float(int(key[:6], 16)))


def expect(fetched, keys):
    assert torch.equal(fetched, torch.stack([entry(key) for key in keys]))


def test_what_is_missing_is_computed_once_in_one_batch(tmp_path):
    cache = FeatureCache(tmp_path, "text", "m")
    for keys, asked in (
        (KEYS[:3], [[0, 1, 2]]),
        (KEYS[:3], []),
        ([KEYS[3], KEYS[1], KEYS[4], KEYS[3]], [[0, 2]]),
    ):
        compute = Counted(keys)
        expect(cache.fetch(keys, compute), keys)
        assert compute.asked == asked
    assert len(cache) == 5


def test_another_run_finds_what_one_has_stored(tmp_path):
    FeatureCache(tmp_path, "text", "m").fetch(KEYS, Counted(KEYS))
    compute = Counted(KEYS)
    expect(FeatureCache(tmp_path, "text", "m").fetch(KEYS, compute), KEYS)
    assert compute.asked == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_entries_come_back_to_the_bit(tmp_path, dtype):
    values = torch.randn(3, 4, 5).to(dtype)
    stored = FeatureCache(tmp_path, "text", "m").fetch(KEYS[:3], lambda missing: values[missing])
    again = FeatureCache(tmp_path, "text", "m").fetch(KEYS[:3], Counted(KEYS))
    assert again.dtype == dtype and torch.equal(again, values) and torch.equal(stored, values)


def test_features_of_another_model_are_noticed_and_not_used(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        FeatureCache(tmp_path, "text", "old").fetch(KEYS, Counted(KEYS))
        FeatureCache(tmp_path, "moments", "old")
        assert not caplog.records
        cache, compute = FeatureCache(tmp_path, "text", "new"), Counted(KEYS)
    assert len(caplog.records) == 1
    assert "text of another model or size (text-old); they are not used" in caplog.text
    cache.fetch(KEYS, compute)
    assert compute.asked == [[0, 1, 2, 3, 4]]


def test_a_broken_file_is_computed_anew(tmp_path, caplog):
    FeatureCache(tmp_path, "text", "m").fetch(KEYS[:2], Counted(KEYS))
    (path,) = (tmp_path / "text-m").iterdir()
    path.write_bytes(path.read_bytes()[:-8])
    compute = Counted(KEYS)
    with caplog.at_level(logging.WARNING):
        expect(FeatureCache(tmp_path, "text", "m").fetch(KEYS[:2], compute), KEYS[:2])
    assert compute.asked == [[0, 1]] and f"{path} cannot be read" in caplog.text
    expect(FeatureCache(tmp_path, "text", "m").fetch(KEYS[:2], pytest.fail), KEYS[:2])


def test_a_file_that_goes_while_it_is_used_is_computed_anew(tmp_path):
    cache = FeatureCache(tmp_path, "text", "m")
    cache.fetch(KEYS[:2], Counted(KEYS))
    for path in (tmp_path / "text-m").iterdir():
        path.unlink()
    compute = Counted(KEYS)
    expect(cache.fetch(KEYS[:2], compute), KEYS[:2])
    assert compute.asked == [[0, 1]]


def test_what_could_not_be_written_leaves_nothing(tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    cache = FeatureCache(tmp_path, "text", "m")
    monkeypatch.setattr("minigpt5.data.features.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        cache.fetch(KEYS, Counted(KEYS))
    assert list((tmp_path / "text-m").iterdir()) == []


def test_a_flipped_bit_is_computed_anew(tmp_path, caplog):
    FeatureCache(tmp_path, "text", "m").fetch(KEYS[:2], Counted(KEYS[:2]))
    (path,) = (tmp_path / "text-m").iterdir()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    compute = Counted(KEYS[:2])
    expect(FeatureCache(tmp_path, "text", "m").fetch(KEYS[:2], compute), KEYS[:2])
    assert compute.asked in ([[0]], [[1]]) and "something else than was written" in caplog.text
    compute = Counted(KEYS[:2])
    expect(FeatureCache(tmp_path, "text", "m").fetch(KEYS[:2], compute), KEYS[:2])


def test_a_half_written_file_of_a_killed_process_is_not_read(tmp_path):
    folder = tmp_path / "text-m"
    folder.mkdir()
    (folder / ".0123.safetensors.4567.tmp").write_bytes(b"half")
    assert len(FeatureCache(tmp_path, "text", "m")) == 0


def test_too_few_features_are_refused(tmp_path):
    with pytest.raises(ValueError, match="5 features were to be computed, got 2"):
        FeatureCache(tmp_path, "text", "m").fetch(KEYS, lambda missing: torch.zeros(2, 3))


def work(folder, start):
    cache = FeatureCache(folder, "text", "m")
    for round_ in range(20):
        keys = [content_key(str((start + round_ * 3 + step) % 30)) for step in range(6)]
        if not torch.equal(cache.fetch(keys, Counted(keys)), torch.stack([entry(key) for key in keys])):
            os._exit(1)


def test_processes_share_a_folder(tmp_path):
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(tmp_path, start)) for start in (0, 5, 10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(FeatureCache(tmp_path, "text", "m")) == 30


def test_one_process_finds_what_another_stores_meanwhile(tmp_path):
    early = FeatureCache(tmp_path, "text", "m")
    FeatureCache(tmp_path, "text", "m").fetch(KEYS, Counted(KEYS))
    expect(early.fetch(KEYS, pytest.fail), KEYS)


def test_content_tells_pictures_texts_and_tensors_apart():
    red = Image.new("RGB", (4, 2), "red")
    different = [
        "a",
        "b",
        red,
        Image.new("RGB", (2, 4), "red"),
        Image.new("RGB", (4, 2), "blue"),
        torch.zeros(4),
        torch.zeros(2, 2),
        torch.zeros(4, dtype=torch.int32),
    ]
    assert len({content_key(content) for content in different}) == len(different)
    assert content_key(red) == content_key(red.copy()) == content_key(red.convert("RGBA"))
    assert content_key(torch.zeros(2, 4).t()) == content_key(torch.zeros(4, 2))


def vae(**settings):
    torch.manual_seed(0)
    model = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, layers_per_block=1, **settings)
    return model.requires_grad_(False)


def test_a_part_is_known_by_weights_configuration_and_settings(tmp_path):
    model = vae()
    key = part_key(model, size=8)
    model.save_pretrained(tmp_path)
    assert part_key(AutoencoderKL.from_pretrained(tmp_path).requires_grad_(False), size=8) == key
    changed = vae()
    changed.quant_conv.bias.data[0] += 1e-3
    others = [
        part_key(model, size=16),
        part_key(vae(scaling_factor=0.5), size=8),
        part_key(vae().half(), size=8),
        part_key(changed, size=8),
        part_key(model, torch.zeros(2), size=8),
    ]
    assert len({key, *others}) == 6


def test_a_part_that_is_being_trained_is_refused():
    with pytest.raises(ValueError, match=r"Linear\.bias is being trained"):
        part_key(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"Parameter is being trained"):
        part_key(nn.Parameter(torch.zeros(2)))


def test_latents_are_sampled_from_cached_moments(tmp_path):
    model, images = vae(), torch.randn(3, 3, 8, 8)
    cache = FeatureCache(tmp_path, "moments", part_key(model))
    keys = [content_key(image) for image in images]
    calls = []

    def encode(missing):
        calls.append(missing)
        return model.encode(images[missing]).latent_dist.parameters

    first = cache.fetch(keys, encode)
    assert torch.equal(cache.fetch(keys, encode), first) and calls == [[0, 1, 2]]
    assert torch.equal(first, model.encode(images).latent_dist.parameters)
