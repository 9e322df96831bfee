"""Pictures as people have them, made RGB; and pictures as tensors.

What is no picture, and one that cannot be read, ends in an `ImageError`; nothing else is raised here. Pixels that
decode are used, whatever else in their file is broken.

Nothing here imports torch before a tensor is asked for: the command line checks its files with this module.
"""

from __future__ import annotations

import io
import math
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from minigpt5.utils.metadata import without_metadata

if TYPE_CHECKING:
    import torch
    from transformers import CLIPImageProcessorPil

Picture: TypeAlias = "Image.Image | np.ndarray | torch.Tensor"

# How a picture is turned upright, by its EXIF orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# What PIL makes of a PNG's grey of 2 and 4 bits; it leaves the transparent grey as it is.
SCALED_GREY = {"L;2": 85, "L;4": 17}
# Rounding takes float pictures this far out of their range.
TOLERANCE = 1e-4
# The longer side of a picture that is read, over the shorter one.
MAX_ASPECT_RATIO = 100


class ImageError(ValueError):
    """A picture that cannot be used; the message says which and why."""


def to_rgb(picture: Picture) -> Image.Image:
    """An RGB picture, upright by its EXIF tag, transparency over white; a new one, that carries pixels alone.

    Args:
        picture: a PIL picture of any mode; an array `(height, width[, channels])`; or a tensor
            `(channels, height, width)`. Arrays and tensors of floats are in [0, 1], of integers in 0…255, of unsigned
            16-bit integers in 0…65535, of bools black and white.

            PIL's mode I;16 is in 0…65535. Its modes I and F do not say what white is: it is 255, or 1 where no value
            of F is larger, or 65535 where one is larger than 255.

    Raises:
        ImageError: for anything else, values outside these ranges, an empty picture, one of more pixels than
            `PIL.Image.MAX_IMAGE_PIXELS`, or one whose file is broken.
    """
    if isinstance(picture, Image.Image):
        try:
            return _from_pil(picture)
        except ImageError:
            raise
        except Exception as error:  # PIL's plugins raise almost anything on broken files
            raise ImageError(f"broken picture ({_reason(error)})") from None
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(picture, torch.Tensor):
        return _from_array(_tensor_values(cast("torch.Tensor", picture)))
    if isinstance(picture, np.ndarray):
        if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[2] not in (1, 3, 4)):
            raise ImageError(f"a picture array is (height, width[, 1, 3 or 4]), got shape {picture.shape}")
        return _from_array(picture)
    hint = "; open a file with PIL.Image.open" if isinstance(picture, (str, bytes, os.PathLike)) else ""
    raise ImageError(f"a picture is a PIL image, an array or a tensor, got {type(picture).__name__}{hint}")


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _check_size(width: int, height: int) -> None:
    if not width or not height:
        raise ImageError(f"an empty picture ({width} × {height} pixels)")
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise ImageError(f"too large a picture ({width:,} × {height:,}, over {Image.MAX_IMAGE_PIXELS:,} pixels)")


def _tensor_values(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's values `(height, width, channels)`."""
    try:
        plain = tensor.detach().cpu()
        values = (plain.float() if plain.is_floating_point() else plain).numpy()
    except Exception as error:  # sparse, quantised, of device meta, …
        raise ImageError(f"a picture tensor that cannot be read ({_reason(error)})") from None
    if values.ndim != 3 or len(values) not in (1, 3, 4):
        raise ImageError(f"a picture tensor is (1, 3 or 4 channels, height, width), got shape {values.shape}")
    return values.transpose(1, 2, 0)


def _from_array(array: np.ndarray) -> Image.Image:
    _check_size(array.shape[1], array.shape[0])
    kind, white = array.dtype.kind, 255
    if kind == "f":
        white = 1
    elif kind == "b":
        array, white = array.astype(np.uint8), 1
    elif kind == "u" and array.dtype.itemsize == 2:
        white = 65535
    elif kind not in "iu":
        raise ImageError(f"a picture holds numbers or bools, got an array of {array.dtype}")
    levels = _levels(np.asarray(array), white)
    image = Image.fromarray(levels[:, :, 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels)
    return _over_white(image) if image.mode == "RGBA" else image.convert("RGB")


def _levels(values: np.ndarray, white: int) -> np.ndarray:
    """Values in 0…`white` as 8-bit levels."""
    low, high = values.min(), values.max()
    slack = TOLERANCE if values.dtype.kind == "f" else 0
    if not (low >= -slack and high <= white + slack):  # nor where one is no number
        raise ImageError(f"a picture of {values.dtype} values is in [0, {white}], got values from {low:g} to {high:g}")
    if white == 255 and values.dtype.kind != "f":
        return values.astype(np.uint8)
    return (values.astype(np.float64).clip(0, white) * (255 / white)).round().astype(np.uint8)


def _from_pil(picture: Image.Image) -> Image.Image:
    _check_size(*picture.size)
    # How a file's values lie is forgotten once they are loaded.
    tiles = getattr(picture, "tile", None)
    stored = str(tiles[0][3]) if tiles else ""
    picture.load()
    turn = _turn(picture)
    transparent = picture.info.get("transparency")
    if picture.mode.startswith("I") or picture.mode == "F":
        image = _from_deep_grey(picture, transparent)
    elif picture.mode in ("1", "L", "P", "RGB") and transparent is not None:
        image = _without_colour(picture, transparent, stored)
    elif picture.mode in ("LA", "La", "PA", "RGBA", "RGBa") or (picture.mode == "P" and _palette_has_alpha(picture)):
        image = _over_white(picture)
    else:
        image = picture.convert("RGB")
    if turn is not None:
        image = image.transpose(turn)
    # What it says of itself was true of the file: turned once more, it would lie on its side.
    image.info = {}
    return image


def _turn(picture: Image.Image) -> Image.Transpose | None:
    """What brings a picture upright; nothing where its EXIF cannot be read."""
    try:
        return TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # almost anything, on a broken entry
        return None


def _from_deep_grey(picture: Image.Image, transparent: object) -> Image.Image:
    """Modes I;16, I and F, which PIL itself would clip to 0…255."""
    values = np.asarray(picture)
    white = 65535
    # The netpbm formats are read as I, and scaled to 16 bits.
    if picture.mode == "F" or (picture.mode == "I" and picture.format != "PPM"):
        high = values.max()
        white = 1 if picture.mode == "F" and high <= 1 + TOLERANCE else 255 if high <= 255 else 65535
    grey = Image.fromarray(_levels(values, white))
    if isinstance(transparent, int):
        grey.paste(255, mask=Image.fromarray(values == transparent))
    return grey.convert("RGB")


def _without_colour(picture: Image.Image, transparent: object, stored: str) -> Image.Image:
    """A picture of which one colour, or entries of its palette, are transparent."""
    if isinstance(transparent, int):
        transparent *= SCALED_GREY.get(stored, 1)
    elif isinstance(transparent, tuple) and stored == "RGB;16B":
        transparent = tuple(value >> 8 for value in transparent)
    plain = picture.copy()
    plain.info = {"transparency": transparent}
    try:
        return _over_white(plain)
    except (TypeError, ValueError, OverflowError):  # no colour of this picture
        plain.info = {}
        return plain.convert("RGB")


def _palette_has_alpha(picture: Image.Image) -> bool:
    return picture.palette is not None and picture.palette.mode.endswith("A")


def _over_white(picture: Image.Image) -> Image.Image:
    rgba = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def open_image(file: str | Path | bytes, name: str | None = None, formats: list[str] | None = None) -> Image.Image:
    """Read a picture file as RGB; of an animation its first frame.

    Args:
        file: a path, or what a file holds.
        name: of the file in errors, where that is not its path.
        formats: the kinds of files that are read, as PIL calls them; `None` for all.

    Raises:
        ImageError: if there is no such file, it is not a picture, is broken, or is too large to be opened safely.
    """
    try:
        if not isinstance(file, bytes):
            mode = os.stat(file).st_mode
            if not stat.S_ISREG(mode):
                raise ImageError(f"is a {'folder' if stat.S_ISDIR(mode) else 'pipe or device'}, not a picture")
        return _decode(file, formats)
    except ImageError as error:
        problem = str(error)
    except FileNotFoundError:
        problem = "no such file"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        problem = f"too large a picture (over {Image.MAX_IMAGE_PIXELS:,} pixels)"
    except UnidentifiedImageError:
        problem = "not a picture that can be read (PNG, JPEG, WebP, …)"
    except Exception as error:  # PIL's plugins raise almost anything on broken files
        problem = f"broken picture ({_reason(error)})"
    raise ImageError(f"{name or ('a picture' if isinstance(file, bytes) else file)}: {problem}")


def _decode(file: str | Path | bytes, formats: list[str] | None) -> Image.Image:
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=formats) as image:
            return to_rgb(image)
    except Exception:
        for pixels in without_metadata(file if isinstance(file, bytes) else Path(file).read_bytes()):
            with suppress(Exception), Image.open(io.BytesIO(pixels), formats=formats) as image:
                return to_rgb(image)
        raise


def trim_strip(image: Image.Image) -> Image.Image:
    """The middle of a strip that is over a hundred times as long as it is wide; any other picture as it is.

    Image processors that scale the shorter side and cut out the middle would need all memory for the rest.
    """
    longest = MAX_ASPECT_RATIO * min(image.size)
    if max(image.size) <= longest:
        return image
    width, height = (min(side, longest) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def pad_to_square(picture: Picture) -> Image.Image:
    """A picture in the middle of a white square as wide as its longer side (published code, pictures to be painted).

    It is made smaller first where that square would have more pixels than a picture may.
    """
    image = to_rgb(picture)
    if Image.MAX_IMAGE_PIXELS is not None and max(image.size) ** 2 > Image.MAX_IMAGE_PIXELS:
        side = math.isqrt(Image.MAX_IMAGE_PIXELS)
        image.thumbnail((side, side))
    side = max(image.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def published_image_processor(size: int = 224) -> CLIPImageProcessorPil:
    """What the published code does to a picture that is read, to the bit.

    The shorter side becomes `size` pixels, bilinear, the middle is cut out, and values take CLIP's mean and deviation.
    The torchvision variant that transformers opens by default is one 8-bit level off in 0.03 % of the values.
    """
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        resample=Image.Resampling.BILINEAR,
    )


def to_tensor(picture: Picture, size: int, resample: Image.Resampling = Image.Resampling.BICUBIC) -> torch.Tensor:
    """A picture as `(3, size, size)` in [-1, 1], squeezed where it is not square.

    The published code's pictures to be painted are `to_tensor(pad_to_square(picture), 512, BILINEAR)`.
    """
    import torch

    image = to_rgb(picture)
    if image.size != (size, size):
        image = image.resize((size, size), resample)
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 127.5 - 1
