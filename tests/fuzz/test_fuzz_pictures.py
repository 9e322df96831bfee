"""Any picture, array, tensor or file is an RGB picture, or is refused with an `ImageError`."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from minigpt5.utils.images import ImageError, open_image, pad_to_square, to_rgb, to_tensor

MODES = ("1", "L", "P", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "La", "PA")
DEEP = ("I;16", "I;16L", "I;16B", "I;16N")
KINDS = ("png", "jpeg", "webp", "gif", "tiff", "bmp", "mpo", "ppm", "ico", "tga")
SIDES = st.integers(0, 9)
DTYPES = (
    arrays.scalar_dtypes() | arrays.unicode_string_dtypes() | arrays.byte_string_dtypes() | st.just(np.dtype(object))
)
NUMBERS = (
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.bool),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.float8_e4m3fn, torch.complex64),
)


@pytest.fixture
def comes_out_rgb(clear_errors):
    def check(make, *of):
        with clear_errors(ImageError):
            image = make(*of)
            assert image.mode == "RGB" and min(image.size) > 0
            image.load()
            assert to_rgb(image).tobytes() == image.tobytes()

    return check


def file_of(kind, **extra):
    buffer = io.BytesIO()
    picture = Image.effect_noise((13, 9), 80)
    (picture if kind == "png" else picture.convert("RGB")).save(buffer, kind, **extra)
    return buffer.getvalue()


@given(content=st.binary(max_size=200), kind=st.sampled_from(KINDS))
def test_any_bytes_in_a_file(comes_out_rgb, content, kind):
    comes_out_rgb(open_image, content)
    comes_out_rgb(open_image, file_of(kind)[:12] + content)


@given(kind=st.sampled_from(KINDS), changes=st.dictionaries(st.integers(0, 10_000), st.integers(0, 255), max_size=20))
def test_a_file_with_changed_bytes(comes_out_rgb, kind, changes):
    content = bytearray(file_of(kind))
    for place, value in changes.items():
        content[place % len(content)] = value
    comes_out_rgb(open_image, bytes(content))


@given(kind=st.sampled_from(("png", "jpeg", "webp")), entry=st.binary(min_size=1, max_size=80))
def test_pixels_are_used_whatever_the_exif(kind, entry):
    content = file_of(kind, exif=b"Exif\x00\x00" + entry)
    assert open_image(content).size in ((13, 9), (9, 13))


@given(
    mode=st.sampled_from(MODES + DEEP),
    size=st.tuples(SIDES, SIDES),
    value=st.integers(-(2**31), 2**31 - 1),
    info=st.dictionaries(
        st.sampled_from(("transparency", "exif", "xmp", "icc_profile", "Raw profile type exif", "XML:com.adobe.xmp")),
        st.none()
        | st.integers()
        | st.binary(max_size=30)
        | st.text(max_size=10)
        | st.tuples(st.integers(), st.integers()),
    ),
)
def test_any_pil_picture(comes_out_rgb, mode, size, value, info):
    picture = Image.new(mode, size, value if mode in ("I", "F") else value % 65536 if mode in DEEP else 0)
    picture.info |= info
    comes_out_rgb(to_rgb, picture)


@given(array=arrays.arrays(DTYPES, arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5)))
def test_any_array(comes_out_rgb, array):
    comes_out_rgb(to_rgb, array)


@given(
    dtype=st.sampled_from(NUMBERS),
    shape=st.lists(st.integers(0, 5), max_size=4),
    value=st.floats(allow_nan=True) | st.integers(-300, 70_000),
    odd=st.sampled_from(("", "sparse", "meta", "grad")),
)
def test_any_tensor(comes_out_rgb, dtype, shape, value, odd):
    tensor = torch.full(shape, value, dtype=torch.float64)
    tensor = (tensor.to_sparse() if odd == "sparse" else tensor).to(dtype)
    if odd == "meta":
        tensor = tensor.to("meta")
    elif odd == "grad" and dtype.is_floating_point:
        tensor.requires_grad_()
    comes_out_rgb(to_rgb, tensor)


@given(size=st.tuples(st.integers(1, 20_000), st.integers(1, 3)), turned=st.booleans())
def test_any_shape_becomes_a_square_tensor(size, turned):
    picture = Image.new("RGB", size[::-1] if turned else size, (255, 0, 0))
    assert to_tensor(picture, 8).shape == (3, 8, 8)
    assert len(set(pad_to_square(picture).size)) == 1
