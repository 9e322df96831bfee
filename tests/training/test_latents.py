"""Latents of a VAE that was never trained."""

import pytest
import torch
from datasets import Dataset, Features, Image

from minigpt5.storyworld import miniature
from minigpt5.training.latents import encode_data_set, normalise_latents, psnr
from minigpt5.utils.images import to_tensor


@pytest.fixture
def vae():
    torch.manual_seed(0)
    return miniature.build_vae().eval()


@pytest.fixture
def pixels(pictures):
    return torch.stack([to_tensor(picture, 64) for picture in pictures])


@torch.no_grad()
def test_normalising_gives_unit_latents_and_the_same_pictures(vae, pixels):
    before = vae.encode(pixels).latent_dist
    decoded = vae.decode(before.mode()).sample
    normalise_latents(vae, pixels)
    after = vae.encode(pixels).latent_dist
    assert torch.allclose(after.mean.mean(dim=(0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(after.mean.std(dim=(0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(vae.decode(after.mode()).sample, decoded, atol=1e-4)
    # The noise of sampling shrinks or grows with the latents.
    scale = before.mean.std(dim=(0, 2, 3)).view(1, -1, 1, 1)
    assert torch.allclose(after.std * scale, before.std, rtol=1e-3)


def test_a_data_set_is_encoded_once(vae, pictures, tmp_path, monkeypatch):
    rows = Dataset.from_dict({"image": pictures}, features=Features({"image": Image()}))
    latents = encode_data_set(vae, rows, 64, tmp_path / "latents.pt")
    assert latents.shape == (4, 4, 16, 16) and latents.dtype == torch.float16
    monkeypatch.delattr(type(vae), "encode")
    assert torch.equal(encode_data_set(vae, rows, 64, tmp_path / "latents.pt"), latents)


def test_what_was_encoded_otherwise_is_encoded_anew(vae, pictures, tmp_path):
    paths, cache = [str(tmp_path / f"{number}.png") for number in range(2)], tmp_path / "latents.pt"
    for path, picture in zip(paths, pictures, strict=False):
        picture.save(path)
    rows = Dataset.from_dict({"image": paths}, features=Features({"image": Image()}))
    # As an earlier version wrote them.
    torch.save(torch.zeros(2, 4, 16, 16, dtype=torch.float16), cache)
    latents = encode_data_set(vae, rows, 64, cache)
    assert latents.abs().max() > 0
    swapped = encode_data_set(vae, rows.select([1, 0]), 64, cache)
    assert torch.equal(swapped, latents.flip(0))
    pictures[0].save(paths[1])
    (same, other) = encode_data_set(vae, rows, 64, cache)
    assert torch.equal(same, other) and torch.equal(same, latents[0])
    with torch.no_grad():
        vae.quant_conv.bias += 1
    assert not torch.equal(encode_data_set(vae, rows, 64, cache)[0], same)


def test_psnr_of_a_known_error():
    pixels = torch.zeros(2, 3, 4, 4)
    assert psnr(pixels + 0.2, pixels) == pytest.approx(20.0, abs=1e-4)
    assert psnr(pixels + 3, pixels) == pytest.approx(psnr(pixels + 1, pixels))
