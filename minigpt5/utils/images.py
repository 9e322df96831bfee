"""Pictures as people have them, made RGB; and pictures as tensors.

Nothing here imports torch before a tensor is asked for: the command line checks its files with this module.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    import torch
    from transformers import CLIPImageProcessorPil

Picture: TypeAlias = "Image.Image | np.ndarray | torch.Tensor"


class ImageError(ValueError):
    """A picture that cannot be used; the message says which and why."""


def to_rgb(picture: Picture) -> Image.Image:
    """An RGB picture, upright by its EXIF tag, transparency over white.

    Args:
        picture: a PIL picture of any mode; an array `(height, width[, channels])`; or a tensor
            `(channels, height, width)`. Arrays and tensors of floats are in [0, 1], of integers in 0…255, of bools
            black and white.

    Raises:
        ImageError: for anything else.
    """
    if hasattr(picture, "detach"):
        if picture.ndim != 3:
            raise ImageError(f"a picture tensor is (channels, height, width), got shape {tuple(picture.shape)}")
        picture = picture.detach().cpu()
        picture = (picture.float() if picture.is_floating_point() else picture).numpy().transpose(1, 2, 0)
    if isinstance(picture, np.ndarray):
        picture = _from_array(picture)
    if not isinstance(picture, Image.Image):
        raise ImageError(f"a picture is a PIL image, an array or a tensor, got {type(picture).__name__}")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        picture = Image.alpha_composite(white, rgba)
    elif picture.mode.startswith("I") or picture.mode == "F":
        # 16-bit grey and float grey: PIL clips instead of scaling.
        full = 1.0 if picture.mode == "F" else 65535.0
        picture = _from_array(np.asarray(picture, dtype=np.float64) / full)
    return picture.convert("RGB")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise ImageError(f"a picture array is (height, width[, 1, 3 or 4]) and not empty, got shape {array.shape}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == bool or np.issubdtype(array.dtype, np.floating):
        array = (np.nan_to_num(array.astype(np.float64)).clip(0, 1) * 255).round()
    return Image.fromarray(array.clip(0, 255).astype(np.uint8))


def open_image(path: str | Path) -> Image.Image:
    """Read a picture file as RGB.

    Raises:
        ImageError: if there is no such file, it is not a picture, is broken, or is too large to be opened safely.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return to_rgb(image)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{path}: is a folder, not a picture") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(f"{path}: too large a picture (over {Image.MAX_IMAGE_PIXELS:,} pixels)") from None
    except UnidentifiedImageError:
        raise ImageError(f"{path}: not a picture that can be read (PNG, JPEG, WebP, …)") from None
    except ImageError:
        raise
    except Exception as error:  # PIL's plugins raise almost anything on broken files
        raise ImageError(f"{path}: broken picture ({error})") from None


def pad_to_square(picture: Picture) -> Image.Image:
    """A picture in the middle of a white square as wide as its longer side (published code, pictures to be painted)."""
    image = to_rgb(picture)
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
