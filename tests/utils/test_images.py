"""Every kind of picture people have comes out RGB, and whatever is no picture is refused by name."""

import hashlib
import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from minigpt5.utils.images import (
    ImageError,
    open_image,
    pad_to_square,
    published_image_processor,
    to_rgb,
    to_tensor,
    trim_strip,
)

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


@pytest.mark.parametrize(("mode", "value"), [("1", 1), ("L", 255), ("CMYK", (0, 0, 0, 0)), ("YCbCr", (255, 128, 128))])
def test_white_in_other_modes(mode, value):
    assert colour(to_rgb(Image.new(mode, (4, 4), value))) == (255, 255, 255)


def test_modes_that_pil_cannot_turn_by_itself():
    lab = Image.new("RGB", (4, 4), RED).convert("LAB")
    lab.info["transparency"] = 0  # means nothing here
    assert np.abs(np.subtract(colour(to_rgb(lab)), RED)).max() <= 6
    assert colour(to_rgb(Image.new("HSV", (4, 4), (0, 255, 255)))) == RED
    assert colour(to_rgb(Image.new("RGBX", (4, 4), RED))) == RED


@pytest.mark.parametrize(
    ("mode", "value", "seen"),
    [
        ("RGBa", (100, 0, 0, 100), RED),
        ("RGBa", (0, 0, 0, 0), (255, 255, 255)),
        ("La", (0, 0), (255, 255, 255)),
        ("La", (100, 255), (100, 100, 100)),
        ("PA", (0, 0), (255, 255, 255)),
    ],
)
def test_transparency_of_rarer_modes(mode, value, seen):
    premultiplied = seen == RED  # red, 100 of 255 of it, over white
    expected = (255, 155, 155) if premultiplied else seen
    assert np.abs(np.subtract(colour(to_rgb(Image.new(mode, (4, 4), value))), expected)).max() <= 1


def test_a_palette_with_alpha_of_its_own():
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 255, 0, 0, 255, 0], "RGBA")
    assert colour(to_rgb(picture)) == (255, 255, 255)


@pytest.mark.parametrize("transparent", [b"\x00", 0])
def test_palette_transparency_in_memory(transparent):
    picture = Image.new("P", (4, 4), 0)
    picture.info["transparency"] = transparent
    assert colour(to_rgb(picture)) == (255, 255, 255)


@pytest.mark.parametrize(
    ("mode", "pixel", "transparent", "expected"),
    [
        ("1", 0, 0, 255),
        ("L", 7, 7, 255),
        ("L", 7, 8, 7),
        ("RGB", (7, 7, 7), (7, 7, 7), 255),
        ("I;16", 0x8080, 0x8080, 255),
        ("I;16", 0x8080, 0x8081, 128),
        ("I", 7, 7, 255),
    ],
)
def test_one_transparent_colour(mode, pixel, transparent, expected):
    picture = Image.new(mode, (4, 4), pixel)
    picture.info["transparency"] = transparent
    assert colour(to_rgb(picture)) == (expected,) * 3


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16", "I", "F", "CMYK", "YCbCr"])
@pytest.mark.parametrize("nonsense", [None, "x", b"", (1, 2), 1e9, [0]])
def test_a_transparency_that_says_nothing_is_passed_over(mode, nonsense):
    picture = Image.new(mode, (4, 4))
    expected = to_rgb(picture).tobytes()
    picture.info["transparency"] = nonsense
    assert to_rgb(picture).tobytes() == expected


def png(header, rows, transparent):
    """A PNG of hand: bit depth and colour type, its packed rows, and the value that is transparent."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    size = struct.pack(">IIBBBBB", 2, len(rows), *header, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\x00" + row for row in rows))
    parts = ((b"IHDR", size), (b"tRNS", transparent), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize(
    ("header", "row", "transparent", "seen"),
    [
        ((16, 0), b"\x80\x80\x40\x40", b"\x80\x80", (255, 64)),
        ((8, 0), b"\x80\x40", b"\x00\x80", (255, 64)),
        ((4, 0), b"\x84", b"\x00\x08", (255, 68)),
        ((2, 0), b"\x60", b"\x00\x01", (255, 170)),
        ((1, 0), b"\x40", b"\x00\x00", (255, 255)),
        ((16, 2), b"\x80\x80" * 3 + b"\x40\x40" * 3, b"\x80\x80" * 3, (255, 64)),
        ((8, 2), b"\x80" * 3 + b"\x40" * 3, b"\x00\x80" * 3, (255, 64)),
    ],
)
def test_the_transparent_colour_of_a_png_of_any_depth(header, row, transparent, seen):
    read = open_image(png(header, [row], transparent))
    assert [colour(read, (x, 0)) for x in (0, 1)] == [(grey,) * 3 for grey in seen]


@pytest.mark.parametrize(
    ("mode", "value", "grey"),
    [
        ("I", 200, 200),
        ("I", 0x8080, 128),
        ("F", 0.5, 128),
        ("F", 200.0, 200),
        ("F", 32896.0, 128),
        ("I;16", 200, 1),
        ("I;16B", 0x8080, 128),
        ("I;16L", 0x8080, 128),
        ("I;16N", 0x8080, 128),
    ],
)
def test_grey_of_many_bits(mode, value, grey):
    assert colour(to_rgb(Image.new(mode, (4, 4), value))) == (grey,) * 3


def test_eight_bit_grey_stays_itself_in_modes_of_many_bits():
    grey = Image.linear_gradient("L")
    for mode in ("I", "F"):
        assert to_rgb(grey.convert(mode)).tobytes() == grey.convert("RGB").tobytes()


@pytest.mark.parametrize(("mode", "value"), [("I", -1), ("I", 70000), ("F", -0.1), ("F", 1e6), ("F", float("nan"))])
def test_grey_without_a_meaning_is_refused(mode, value):
    with pytest.raises(ImageError, match="got values from"):
        to_rgb(Image.new(mode, (4, 4), value))


def test_a_dark_netpbm_picture_of_sixteen_bits_stays_dark():
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), 250, np.uint16)).save(buffer, "ppm")
    assert colour(open_image(buffer.getvalue())) == (1, 1, 1)


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


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation(orientation):
    picture = Image.effect_noise((6, 4), 50).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.info["exif"] = exif.tobytes()
    turned = to_rgb(picture)
    assert turned.tobytes() == ImageOps.exif_transpose(picture).tobytes()
    # What is upright is not turned again.
    assert to_rgb(turned).tobytes() == turned.tobytes()


@pytest.mark.parametrize("orientation", [0, 9, -1, 10**9, "6", b"6", (6, 6), 1.5, [6]])
def test_an_odd_orientation_is_none(orientation):
    picture = Image.effect_noise((6, 4), 50).convert("RGB")
    picture.getexif()[0x0112] = orientation
    assert to_rgb(picture).tobytes() == picture.tobytes()


@pytest.mark.parametrize(
    "broken",
    [
        {"exif": b"Exif\x00\x00MM\x00*\x00\x00"},
        {"exif": b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff\x12\x01"},
        {"exif": b"nonsense"},
        {"exif": 3},
        {"exif": "text"},
        {"Raw profile type exif": "zz"},
        {"xmp": 5},
    ],
    ids=str,
)
def test_a_good_picture_with_broken_exif_is_used(broken):
    picture = Image.effect_noise((6, 4), 50).convert("RGB")
    picture.info |= broken
    assert to_rgb(picture).tobytes() == picture.tobytes()


def exif_with_a_broken_entry():
    exif = Image.Exif()
    exif[0x0112] = 1
    content = bytearray(exif.tobytes())
    content[-12:-8] = b"\xff\xff\xff\xff"
    return bytes(content)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp"])
def test_a_good_file_with_broken_exif_is_used(kind):
    picture, buffer = Image.new("RGB", (8, 4), RED), io.BytesIO()
    picture.save(buffer, kind, exif=exif_with_a_broken_entry())
    read = open_image(buffer.getvalue())
    assert read.size == (8, 4) and np.abs(np.subtract(colour(read), RED)).max() < 5


def test_a_png_whose_exif_has_a_wrong_checksum_is_used():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4), RED).save(buffer, "png", exif=exif_with_a_broken_entry())
    content = buffer.getvalue()
    at = content.index(b"eXIf")
    assert colour(open_image(content[: at + 8] + b"?" + content[at + 9 :])) == RED


def test_a_jpeg_whose_index_of_pictures_is_broken_is_used():
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [Image.new("RGB", (8, 4))]}
    Image.new("RGB", (8, 4), RED).save(buffer, "mpo", exif=exif, **frames)
    content = buffer.getvalue()
    at = content.index(b"MPF") + 4
    for place in range(at, at + 40):
        read = open_image(content[:place] + b"\xff" + content[place + 1 :])
        assert np.abs(np.subtract(colour(read), RED)).max() < 5
        assert read.size == (4, 8)


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tiff"])
def test_the_first_frame_of_an_animation(kind):
    frames, buffer = [Image.new("RGB", (8, 4), colour) for colour in (RED, "green", "blue")], io.BytesIO()
    frames[0].save(
        buffer, kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "webp" else {})
    )
    assert colour(open_image(buffer.getvalue())) == RED
    # Cut off behind it, its pixels are there all the same.
    if kind == "gif":
        assert colour(open_image(buffer.getvalue()[:-20])) == RED


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


@pytest.mark.parametrize(("dtype", "red"), [(np.uint8, 255), (np.int64, 255), (np.float32, 1.0), (np.float16, 1.0)])
def test_arrays(dtype, red):
    array = np.zeros((4, 6, 3), dtype)
    array[..., 0] = red
    assert to_rgb(array).size == (6, 4)
    assert colour(to_rgb(array)) == RED
    assert colour(to_rgb(array[..., 0])) == (255, 255, 255)
    assert colour(to_rgb(array[..., :1])) == (255, 255, 255)


def test_transparent_array():
    assert colour(to_rgb(np.zeros((4, 4, 4), np.uint8))) == (255, 255, 255)


def test_a_sixteen_bit_array_is_scaled():
    for order in "<>":
        assert colour(to_rgb(np.full((4, 4), 0x8081, f"{order}u2"))) == (128, 128, 128)
        assert colour(to_rgb(np.full((4, 4), 0x81, f"{order}u2"))) == (1, 1, 1)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (np.full((4, 4, 3), 1.5), r"float64 values is in \[0, 1\], got values from 1.5 to 1.5"),
        (np.full((4, 4, 3), -0.5, np.float32), r"in \[0, 1\], got values from -0.5"),
        (np.full((4, 4), 200.0), r"in \[0, 1\], got values from 200"),
        (np.full((4, 4), np.nan), r"in \[0, 1\], got values from nan"),
        (np.full((4, 4), np.inf), r"in \[0, 1\], got values from inf"),
        (np.full((4, 4), 256), r"int64 values is in \[0, 255\], got values from 256"),
        (np.full((4, 4), -1, np.int8), r"int8 values is in \[0, 255\], got values from -1"),
        (torch.full((3, 4, 4), 2.0), r"float32 values is in \[0, 1\], got values from 2"),
        (torch.full((3, 4, 4), 300), r"in \[0, 255\], got values from 300"),
    ],
)
def test_values_outside_their_range_are_refused(values, told):
    with pytest.raises(ImageError, match=told):
        to_rgb(values)


def test_rounding_is_no_value_outside_the_range():
    assert colour(to_rgb(np.full((2, 2), 1 + 1e-6))) == (255,) * 3
    assert colour(to_rgb(np.full((2, 2), -1e-6))) == (0,) * 3


@pytest.mark.parametrize(("dtype", "red"), [(torch.uint8, 255), (torch.float32, 1), (torch.bfloat16, 1)])
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
    "thing",
    [
        torch.zeros(4, 4),
        torch.zeros(1, 3, 4, 4),
        torch.zeros(8, 8, 3),
        torch.zeros(3, 0, 4),
        torch.zeros(3, 4, 4, device="meta"),
        torch.zeros(3, 4, 4).to_sparse(),
        torch.zeros(3, 4, 4, dtype=torch.complex64),
        np.zeros(4),
        np.zeros((4, 4, 2)),
        np.zeros((3, 8, 8)),
        np.zeros((0, 4, 3)),
        np.zeros((4, 4), complex),
        np.full((4, 4), "a"),
        np.full((4, 4), None),
        np.zeros((4, 4), "datetime64[s]"),
        np.broadcast_to(np.uint8(0), (10**6, 10**6)),
        Image.new("RGB", (0, 4)),
        "a.png",
        Path("a.png"),
        b"a",
        None,
        [[0, 255], [255, 0]],
    ],
)
def test_what_is_no_picture_is_refused(thing):
    with pytest.raises(ImageError, match="picture"):
        to_rgb(thing)


def test_tensors_that_are_being_trained_or_of_few_bits():
    assert colour(to_rgb(torch.ones(3, 4, 4, requires_grad=True))) == (255,) * 3
    assert colour(to_rgb(torch.ones(1, 4, 4, dtype=torch.float8_e4m3fn))) == (255,) * 3
    assert colour(to_rgb(torch.full((3, 4, 4), 0x8080, dtype=torch.uint16))) == (128,) * 3
    assert colour(to_rgb(torch.ones(3, 4, 4, dtype=torch.bool))) == (255,) * 3


def test_decompression_bomb(tmp_path, monkeypatch):
    Image.new("RGB", (40, 40)).save(tmp_path / "bomb.png")
    for limit in (1000, 100):  # PIL warns above the limit and raises above twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with pytest.raises(ImageError, match="too large"):
            open_image(tmp_path / "bomb.png")


def test_a_decompression_bomb_in_memory(tmp_path, monkeypatch):
    picture = Image.new("RGB", (40, 40))
    picture.save(tmp_path / "bomb.png")
    unread = Image.open(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for bomb in (picture, unread, np.zeros((40, 40)), torch.zeros(3, 40, 40)):
        with pytest.raises(ImageError, match=r"too large a picture \(40 × 40, over 1,000 pixels\)"):
            to_rgb(bomb)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert to_rgb(picture).size == (40, 40)


def test_a_broken_file_that_was_opened_but_not_read(tmp_path):
    path = tmp_path / "whole.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ImageError, match="broken picture"):
        to_rgb(Image.open(path))


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    os.symlink(tmp_path / "loop.png", tmp_path / "loop.png")
    for name, reason in (("pipe.png", "pipe"), ("loop.png", "broken picture"), ("a\0b", "broken picture")):
        with pytest.raises(ImageError, match=reason):
            open_image(tmp_path / name)


def test_strips_are_padded_and_trimmed_without_running_out_of_memory():
    strip = Image.new("RGB", (1_000_000, 1), RED)
    square = pad_to_square(strip)
    assert square.size == (9459, 9459) and colour(square, (0, 4729)) == RED
    assert trim_strip(strip).size == (100, 1)
    assert published_image_processor(32)(trim_strip(strip), return_tensors="pt")["pixel_values"].shape == (1, 3, 32, 32)
    ordinary = Image.new("RGB", (100, 1))
    assert trim_strip(ordinary) is ordinary


def test_a_trimmed_strip_is_read_as_the_whole():
    strip = Image.effect_noise((3000, 8), 90).convert("RGB")
    process = published_image_processor(32)
    whole, trimmed = (process(picture, return_tensors="pt")["pixel_values"] for picture in (strip, trim_strip(strip)))
    torch.testing.assert_close(whole, trimmed)


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
