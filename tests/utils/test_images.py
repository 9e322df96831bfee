"""Every kind of picture people have comes out RGB, and whatever is no picture is refused by name."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from minigpt5.utils.images import ImageError, open_image, pad_to_square, published_image_processor, to_rgb, to_tensor

RED = (255, 0, 0)


def colour(picture, at=(0, 0)):
    """The colour of a pixel, once the picture is seen to be RGB."""
    assert picture.mode == "RGB"
    return picture.getpixel(at)


def test_transparency_lies_over_white():
    assert colour(to_rgb(Image.new("RGBA", (4, 4), (255, 0, 0, 0)))) == (255, 255, 255)
    assert colour(to_rgb(Image.new("RGBA", (4, 4), (255, 0, 0, 255)))) == RED
    assert colour(to_rgb(Image.new("LA", (4, 4), (0, 0)))) == (255, 255, 255)
    assert colour(to_rgb(Image.new("LA", (4, 4), (10, 255)))) == (10, 10, 10)


def test_transparent_palette_entry(tmp_path):
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([255, 0, 0, 0, 255, 0])
    picture.putpixel((1, 1), 1)
    picture.save(tmp_path / "palette.png", transparency=0)
    read = open_image(tmp_path / "palette.png")
    assert colour(read) == (255, 255, 255)
    assert colour(read, (1, 1)) == (0, 255, 0)


def test_opaque_palette():
    assert colour(to_rgb(Image.new("RGB", (4, 4), RED).quantize())) == RED


@pytest.mark.parametrize("mode, value", [("1", 1), ("L", 255), ("CMYK", (0, 0, 0, 0)), ("YCbCr", (255, 128, 128))])
def test_white_in_other_modes(mode, value):
    assert colour(to_rgb(Image.new(mode, (4, 4), value))) == (255, 255, 255)


@pytest.mark.parametrize("value", [0, 0x8080, 0xFFFF])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path, value):
    Image.fromarray(np.full((4, 4), value, np.uint16)).save(tmp_path / "grey.png")
    assert colour(open_image(tmp_path / "grey.png")) == (value >> 8,) * 3


def test_exif_rotation(tmp_path):
    picture = Image.new("RGB", (8, 4), "white")
    picture.paste(RED, (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    picture.save(tmp_path / "turned.png", exif=exif)
    read = open_image(tmp_path / "turned.png")
    assert read.size == (4, 8)
    assert colour(read, (0, 0)) == RED and colour(read, (0, 7)) == (255, 255, 255)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif"])
def test_file_formats(tmp_path, suffix):
    Image.new("RGB", (16, 8), RED).save(tmp_path / f"red.{suffix}")
    read = open_image(tmp_path / f"red.{suffix}")
    assert read.size == (16, 8)
    assert np.abs(np.subtract(colour(read), RED)).max() < 5


@pytest.mark.parametrize("size", [(1, 1), (2000, 1), (1, 2000)])
def test_extreme_sizes(size):
    picture = Image.new("RGB", size, RED)
    assert to_rgb(picture).size == size
    tensor = to_tensor(picture, 64)
    assert tensor.shape == (3, 64, 64)
    assert tensor[0].min() == 1 and tensor[1].max() == -1


@pytest.mark.parametrize("dtype, red", [(np.uint8, 255), (np.int64, 255), (np.float32, 1.0), (np.float16, 1.0)])
def test_arrays(dtype, red):
    array = np.zeros((4, 6, 3), dtype)
    array[..., 0] = red
    assert to_rgb(array).size == (6, 4)
    assert colour(to_rgb(array)) == RED
    assert colour(to_rgb(array[..., 0])) == (255, 255, 255)
    assert colour(to_rgb(array[..., :1])) == (255, 255, 255)


def test_transparent_array():
    assert colour(to_rgb(np.zeros((4, 4, 4), np.uint8))) == (255, 255, 255)


def test_values_outside_the_range_are_clipped():
    assert colour(to_rgb(np.full((4, 4, 3), 1.5))) == (255, 255, 255)
    assert colour(to_rgb(np.full((4, 4, 3), -0.5))) == (0, 0, 0)


@pytest.mark.parametrize("dtype, red", [(torch.uint8, 255), (torch.float32, 1), (torch.bfloat16, 1)])
def test_tensors(dtype, red):
    tensor = torch.zeros(3, 4, 6, dtype=dtype)
    tensor[0] = red
    assert to_rgb(tensor).size == (6, 4)
    assert colour(to_rgb(tensor)) == RED


def test_to_tensor_keeps_pixels():
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    tensor = to_tensor(pixels, 4)
    assert torch.equal(((tensor + 1) * 127.5).round().to(torch.uint8), torch.from_numpy(pixels).permute(2, 0, 1))


@pytest.mark.parametrize(
    "thing", [torch.zeros(4, 4), torch.zeros(1, 3, 4, 4), np.zeros(4), np.zeros((4, 4, 2)), "a.png"]
)
def test_what_is_no_picture_is_refused(thing):
    with pytest.raises(ImageError, match="picture"):
        to_rgb(thing)


def test_decompression_bomb(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "bomb.png")
    for limit in (1000, 100):  # PIL warns above the limit and raises above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ImageError, match="too large"):
            open_image(tmp_path / "bomb.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_truncated_file(tmp_path, suffix):
    path = tmp_path / f"whole.{suffix}"
    Image.effect_noise((64, 64), 50).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=f"whole.{suffix}: "):
        open_image(path)


def test_files_that_are_no_pictures(tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    for name, reason in (("text.png", "not a picture"), ("empty.png", "not a picture"), ("none.png", "no such file")):
        with pytest.raises(ImageError, match=reason):
            open_image(tmp_path / name)
    with pytest.raises(ImageError, match="folder"):
        open_image(tmp_path)


GOLDEN = Path(__file__).parents[1] / "golden/datasets"


def digest(values):
    """Of a picture's bytes, given as floats (3, height, width) in 0…255."""
    return hashlib.sha256(values.round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy().tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("recorded", "prepare"), [("input_224_plain", to_rgb), ("input_224_square_white", pad_to_square)]
)
def test_pictures_that_are_read_become_the_published_pixels(recorded, prepare):
    expected = json.loads((GOLDEN / "pixels.json").read_text())[recorded]
    picture = prepare(open_image(GOLDEN / "pixels_source.png"))
    assert list(picture.size) == expected["size"]
    processor = published_image_processor(224)
    pixels = processor(picture, return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(pixels[:, :2, :2], torch.tensor(expected["corner"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(pixels.mean((1, 2)), torch.tensor(expected["mean"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(pixels.std((1, 2)), torch.tensor(expected["std"]), atol=1e-6, rtol=0)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (processor.image_mean, processor.image_std))
    assert digest((pixels * std + mean) * 255) == expected["sha256_uint8"]


def test_pictures_to_be_painted_become_the_published_pixels():
    expected = json.loads((GOLDEN / "pixels.json").read_text())["output_512_square_white"]
    square = pad_to_square(open_image(GOLDEN / "pixels_source.png"))
    pixels = to_tensor(square, 512, Image.Resampling.BILINEAR)
    torch.testing.assert_close(pixels.mean((1, 2)), torch.tensor(expected["mean"]), atol=1e-6, rtol=0)
    torch.testing.assert_close(pixels.std((1, 2)), torch.tensor(expected["std"]), atol=1e-6, rtol=0)
    assert digest((pixels + 1) * 127.5) == expected["sha256_uint8"]


def test_a_square_has_white_bars_on_both_sides():
    tall = pad_to_square(Image.new("RGB", (2, 6), RED))
    assert tall.size == (6, 6)
    assert [colour(tall, (x, 3)) for x in (1, 2, 3, 4)] == [(255,) * 3, RED, RED, (255,) * 3]
    assert pad_to_square(Image.new("RGB", (3, 3), RED)).size == (3, 3)
