"""Pictures of data URLs, as encoders write them."""

import base64
import io
import struct
import zlib
from urllib.parse import quote

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image

from minigpt5.service.pictures import PictureLimits, open_picture
from minigpt5.service.shapes import read_chat
from minigpt5.utils.images import ImageError

LIMITS = PictureLimits(max_pixels=100)


def png(width, height, *chunks):
    """A PNG with more chunks behind its header."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    extra = [
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ]
    return b"".join([file.getvalue()[:33], *extra, file.getvalue()[33:]])


FILE = png(3, 2)
TEXT = base64.b64encode(FILE).decode()


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png;base64,{TEXT}",
        f"data:;base64,{TEXT}",
        f"DATA:image/png;name=fox.png;BASE64,{TEXT}",
        f"data:image/png;base64,{base64.encodebytes(FILE).decode()}",
        f"data:image/png;base64, {base64.encodebytes(FILE).decode()}".replace("\n", "\r\n\t"),
        f"data:image/png;base64,{TEXT.rstrip('=')}",
        f"data:image/png;base64,{quote(TEXT, safe='')}",
        f"data:image/png,{quote(FILE)}",
    ],
)
def test_a_data_url_is_read_as_browsers_do(url):
    assert len(FILE) % 3, "the base64 is to be filled up"
    assert np.array_equal(open_picture(url, LIMITS), np.full((2, 3, 3), (255, 0, 0)))


@pytest.mark.parametrize("text", ["$$$", TEXT[:9] + "=" + TEXT[9:], TEXT[:-4] + "A", "\ud83d"])
def test_what_is_not_base64_is_told(text):
    with pytest.raises(ImageError, match="not base64"):
        open_picture(f"data:image/png;base64,{text}", LIMITS)


def test_a_picture_whose_metadata_is_broken_has_the_limits_of_others():
    broken = (b"pHYs", b"123")
    for width, height in ((3, 2), (11, 10)):
        file = png(width, height, broken)
        with pytest.raises(ValueError, match="pHYs"):
            Image.open(io.BytesIO(file))
        url = f"data:image/png;base64,{base64.b64encode(file).decode()}"
        if width == 3:
            assert open_picture(url, LIMITS).size == (3, 2)
        else:
            with pytest.raises(ImageError, match="11 × 10, over 100 pixels"):
                open_picture(url, LIMITS)


def test_postscript_is_not_run(monkeypatch):
    run = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *given, **more: run.append(given))
    file = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(file, "EPS")
    with pytest.raises(ImageError, match="not a picture that can be read"):
        open_picture(f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}", LIMITS)
    assert run == []


def test_a_file_that_is_decoded_to_be_opened_is_not(monkeypatch):
    """The directory of an ICO may say anything of the PNG within, which its plugin decodes at once."""
    inner = png(300, 300)
    file = struct.pack("<HHHBBBBHHII", 0, 1, 1, 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    with Image.open(io.BytesIO(file)) as opened:
        assert (opened.format, opened.size) == ("ICO", (300, 300))
    with pytest.raises(ImageError, match="not a picture that can be read"):
        open_picture(f"data:image/png;base64,{base64.b64encode(file).decode()}", LIMITS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_the_common_kinds_are_opened(kind):
    file = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(file, kind)
    assert open_picture(f"data:;base64,{base64.b64encode(file.getvalue()).decode()}", LIMITS).size == (3, 2)


def test_the_pictures_of_a_request_are_bounded_together():
    part = {"type": "image_url", "image_url": {"url": f"data:;base64,{base64.b64encode(png(10, 10)).decode()}"}}
    ask = lambda *counts: read_chat({"messages": [{"role": "user", "content": [part] * n} for n in counts]}, LIMITS)  # noqa: E731
    assert [len(message["content"]) for message in ask(7, 9).prompt] == [7, 9]
    for counts in ((17,), (9, 8)):
        with pytest.raises(ImageError, match="together over 1,600 pixels"):
            ask(*counts)
