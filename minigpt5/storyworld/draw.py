"""Paints a `Scene` as a flat picture-book illustration, the same at any resolution.

Everything is drawn in unit coordinates on a canvas of twice the size, which a box filter then halves. A picture is a
sky (gradient, sun or moon, clouds or stars), one painter's scenery per place and one sprite per character. Sky
gradients and sprites do not depend on the decor and are cached, so that a picture costs little more than its scenery.

A kind's painter draws its animal facing right into a unit square with the feet on the lower edge; the sprite adds what
lifts any colour off any background: an outline in a dark shade of the colour and a soft shadow on the ground. Night
darkens the scenery strongly and the characters hardly, which keeps their colours nameable.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from minigpt5.storyworld.scene import LIGHTS, OPPOSITE, SIDES, Character, Scene

RGB = tuple[int, int, int]
Point = tuple[float, float]

SUPERSAMPLING = 2
SIDE_X = {"left": 0.26, "middle": 0.5, "right": 0.74}
FEET_Y = 0.86
JITTER = 0.02
# In no picture; sun or moon is drawn in it to be told from all else.
MAGENTA = (255, 0, 255)
# A character's unit square, the sprite around it (which leaves room for outline and shadow) and the sprite's ground
# line, in picture heights.
CHARACTER_SIZE = 0.445
SPRITE_SIZE = 0.56
SPRITE_GROUND = 0.50
OUTLINE = 0.009

BLACK = (34, 28, 44)
WHITE = (255, 255, 255)
BEAK = (252, 176, 44)
LEG = (206, 116, 32)


class Palette(NamedTuple):
    """The shades of one character: its colour, a darker and a lighter one for parts, and the outline."""

    base: RGB
    dark: RGB
    light: RGB
    line: RGB


PALETTES = {
    "red": Palette((220, 36, 36), (166, 18, 30), (244, 124, 104), (92, 6, 20)),
    "orange": Palette((248, 126, 10), (204, 90, 6), (255, 194, 126), (116, 46, 4)),
    "yellow": Palette((255, 218, 28), (226, 172, 8), (255, 244, 172), (124, 88, 6)),
    "green": Palette((44, 164, 66), (22, 116, 50), (158, 222, 138), (8, 64, 30)),
    "blue": Palette((44, 104, 228), (24, 68, 172), (146, 194, 250), (12, 32, 100)),
    "purple": Palette((134, 58, 192), (94, 32, 146), (198, 158, 234), (50, 14, 88)),
    "pink": Palette((255, 140, 190), (228, 94, 152), (255, 212, 230), (138, 42, 90)),
    "white": Palette((248, 248, 248), (208, 209, 216), (255, 255, 255), (104, 106, 122)),
}


class Pen:
    """Draws shapes given in unit coordinates: a unit is `scale` pixels, the origin lies at pixel `origin`."""

    def __init__(self, image: Image.Image, scale: float, origin: Point = (0.0, 0.0)):
        self._draw = ImageDraw.Draw(image)
        self._scale = scale
        self._x, self._y = origin

    def _pixels(self, points: Iterable[Point]) -> list[Point]:
        scale, left, top = self._scale, self._x, self._y
        return [(left + x * scale, top + y * scale) for x, y in points]

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: RGB | int) -> None:
        """An ellipse around (x, y)."""
        self._draw.ellipse(self._pixels(((x - rx, y - ry), (x + rx, y + ry))), fill)

    def rectangle(self, left: float, top: float, right: float, bottom: float, fill: RGB) -> None:
        """An upright rectangle, its right and lower edge excluded so that neighbours do not overlap."""
        (x0, y0), (x1, y1) = self._pixels(((left, top), (right, bottom)))
        self._draw.rectangle((round(x0), round(y0), max(round(x0), round(x1) - 1), max(round(y0), round(y1) - 1)), fill)

    def polygon(self, points: Sequence[Point], fill: RGB) -> None:
        """A polygon with straight edges."""
        self._draw.polygon(self._pixels(points), fill)

    def blob(self, points: Sequence[Point], fill: RGB) -> None:
        """A closed smooth shape through the points."""
        self.polygon(_spline((points[-1], *points, points[0], points[1])), fill)

    def stroke(self, points: Sequence[Point], width: float, fill: RGB) -> None:
        """A smooth line through the points with round ends."""
        path = _spline((points[0], *points, points[-1]))
        self._draw.line(self._pixels(path), fill, max(1, round(width * self._scale)))
        # Discs round the ends and the bends; PIL's own curved joints leave cracks in thick lines.
        for x, y in path:
            self.ellipse(x, y, width / 2, width / 2, fill)

    def ridge(self, y: float, height: float, waves: float, phase: float, fill: RGB) -> None:
        """Rolling ground from a wavy line around `y` down to the lower edge."""
        crest = [(x / 24, y + height * math.sin(phase + waves * math.tau * x / 24)) for x in range(25)]
        self.polygon((*crest, (1, 1), (0, 1)), fill)


def _spline(points: Sequence[Point], steps: int = 10) -> list[Point]:
    """A Catmull-Rom curve through all points but the first and the last, which only lend it direction."""
    path = []
    for (ax, ay), (bx, by), (cx, cy), (dx, dy) in zip(points, points[1:], points[2:], points[3:], strict=False):
        for step in range(steps):
            t = step / steps
            a, b, c, d = -t * (1 - t) ** 2, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, t**3 - t**2
            path.append(((a * ax + b * bx + c * cx + d * dx) / 2, (a * ay + b * by + c * cy + d * dy) / 2))
    return [*path, points[-2]]


def _between(one: RGB, other: RGB) -> RGB:
    """The mean of two colours."""
    return (one[0] + other[0]) // 2, (one[1] + other[1]) // 2, (one[2] + other[2]) // 2


def _eye(pen: Pen, palette: Palette, x: float, y: float, size: float = 0.068) -> None:
    """A big eye that looks to the right."""
    pen.ellipse(x, y, size + 0.018, size * 1.15 + 0.018, palette.line)
    pen.ellipse(x, y, size, size * 1.15, WHITE)
    pen.ellipse(x + size * 0.2, y + size * 0.1, size * 0.72, size * 0.92, BLACK)
    pen.ellipse(x + size * 0.4, y - size * 0.35, size * 0.26, size * 0.3, WHITE)


def _rimmed(pen: Pen, x: float, y: float, rx: float, ry: float, fill: RGB, rim: RGB) -> None:
    """An ellipse set off by a thin rim from the part of the same colour that it covers."""
    pen.ellipse(x, y, rx + 0.02, ry + 0.02, rim)
    pen.ellipse(x, y, rx, ry, fill)


def _legs(pen: Pen, palette: Palette, xs: Sequence[float], top: float, width: float) -> None:
    """Four legs, the far pair (the second and the last) in the darker shade."""
    for index in (1, 3, 0, 2):
        x = xs[index]
        pen.stroke(((x, top), (x, 1 - width / 2)), width, palette.dark if index % 2 else palette.base)


def _cat(pen: Pen, c: Palette) -> None:
    """Pointed ears, whiskers and a thin tail that curls up."""
    pen.stroke(((0.2, 0.72), (0.07, 0.52), (0.09, 0.28), (0.21, 0.2), (0.25, 0.3)), 0.085, c.base)
    _legs(pen, c, (0.25, 0.37, 0.55, 0.67), 0.72, 0.12)
    pen.ellipse(0.42, 0.7, 0.27, 0.18, c.base)
    for ear, inner in (
        (((0.4, 0.38), (0.43, 0.01), (0.66, 0.2)), ((0.46, 0.26), (0.475, 0.11), (0.575, 0.2))),
        (((0.68, 0.2), (0.9, 0.01), (0.94, 0.38)), ((0.76, 0.2), (0.86, 0.11), (0.88, 0.26))),
    ):
        pen.polygon(ear, c.base)
        pen.polygon(inner, c.dark)
    pen.ellipse(0.67, 0.4, 0.285, 0.25, c.dark)
    pen.ellipse(0.67, 0.385, 0.27, 0.235, c.base)
    pen.ellipse(0.7, 0.5, 0.12, 0.085, c.light)
    for y, tip in ((0.48, 0.45), (0.53, 0.55)):
        pen.stroke(((0.56, y), (0.44, tip)), 0.014, c.line)
        pen.stroke(((0.84, y), (0.93, tip)), 0.014, c.line)
    pen.polygon(((0.66, 0.455), (0.74, 0.455), (0.7, 0.505)), BLACK)
    _eye(pen, c, 0.57, 0.37)
    _eye(pen, c, 0.8, 0.37)


def _dog(pen: Pen, c: Palette) -> None:
    """Floppy dark ears, a long blunt muzzle with a black nose and a short tail."""
    pen.stroke(((0.18, 0.62), (0.1, 0.52), (0.07, 0.42)), 0.1, c.base)
    _legs(pen, c, (0.2, 0.33, 0.54, 0.67), 0.7, 0.13)
    pen.blob(((0.12, 0.68), (0.2, 0.54), (0.45, 0.52), (0.66, 0.44), (0.73, 0.66), (0.6, 0.84), (0.2, 0.83)), c.base)
    pen.ellipse(0.6, 0.3, 0.23, 0.24, c.base)
    pen.blob(((0.62, 0.34), (0.78, 0.26), (0.93, 0.3), (0.94, 0.43), (0.8, 0.5), (0.64, 0.5)), c.light)
    pen.ellipse(0.905, 0.3, 0.06, 0.05, BLACK)
    pen.stroke(((0.74, 0.43), (0.83, 0.43), (0.9, 0.4)), 0.02, c.line)
    pen.blob(((0.42, 0.1), (0.53, 0.1), (0.56, 0.28), (0.5, 0.52), (0.38, 0.54), (0.33, 0.36)), c.dark)
    _eye(pen, c, 0.68, 0.21)


def _fox(pen: Pen, c: Palette) -> None:
    """A bushy tail with a white tip, white cheeks and a pointed snout."""
    pen.blob(((0.3, 0.8), (0.1, 0.74), (0.02, 0.5), (0.06, 0.3), (0.14, 0.18), (0.26, 0.36), (0.3, 0.56)), c.base)
    pen.blob(((0.03, 0.42), (0.05, 0.29), (0.14, 0.17), (0.225, 0.28), (0.255, 0.38), (0.14, 0.36)), WHITE)
    for x in (0.42, 0.7):
        pen.stroke(((x, 0.75), (x, 0.95)), 0.1, c.dark)
    for x in (0.3, 0.58):
        pen.stroke(((x, 0.75), (x, 0.95)), 0.1, c.base)
        pen.stroke(((x, 0.9), (x, 0.95)), 0.1, c.dark)
    pen.blob(((0.2, 0.72), (0.34, 0.6), (0.55, 0.5), (0.72, 0.56), (0.74, 0.74), (0.55, 0.84), (0.28, 0.86)), c.base)
    for ear, inner in (
        (((0.42, 0.4), (0.42, 0.02), (0.6, 0.22)), ((0.45, 0.24), (0.455, 0.12), (0.52, 0.2))),
        (((0.58, 0.24), (0.72, 0.02), (0.77, 0.34)), ((0.645, 0.22), (0.705, 0.12), (0.73, 0.24))),
    ):
        pen.polygon(ear, c.base)
        pen.polygon(inner, c.dark)
    pen.polygon(
        _spline(
            (
                (0.7, 0.6),
                (0.96, 0.46),
                (0.76, 0.26),
                (0.6, 0.19),
                (0.44, 0.26),
                (0.38, 0.44),
                (0.48, 0.58),
                (0.7, 0.59),
                (0.96, 0.46),
                (0.76, 0.26),
            )
        ),
        c.base,
    )
    pen.polygon(
        _spline(
            (
                (0.76, 0.3),
                (0.95, 0.46),
                (0.8, 0.43),
                (0.66, 0.47),
                (0.42, 0.46),
                (0.5, 0.57),
                (0.7, 0.59),
                (0.95, 0.46),
                (0.76, 0.3),
            )
        ),
        WHITE,
    )
    pen.ellipse(0.925, 0.455, 0.04, 0.038, BLACK)
    _eye(pen, c, 0.65, 0.36, 0.064)


def _rabbit(pen: Pen, c: Palette) -> None:
    """Two tall ears, a round white tail, sitting upright."""
    _rimmed(pen, 0.17, 0.82, 0.1, 0.1, c.light, c.dark)
    pen.blob(((0.47, 0.44), (0.35, 0.2), (0.36, 0.03), (0.44, 0.0), (0.52, 0.12), (0.58, 0.44)), c.base)
    pen.blob(((0.48, 0.36), (0.41, 0.2), (0.41, 0.08), (0.47, 0.16), (0.52, 0.36)), c.dark)
    pen.blob(((0.6, 0.44), (0.6, 0.14), (0.67, 0.0), (0.75, 0.03), (0.77, 0.18), (0.72, 0.44)), c.base)
    pen.blob(((0.64, 0.36), (0.65, 0.17), (0.7, 0.07), (0.72, 0.18), (0.69, 0.36)), c.dark)
    pen.blob(((0.2, 0.8), (0.3, 0.64), (0.5, 0.56), (0.7, 0.66), (0.73, 0.82), (0.68, 0.96), (0.28, 0.97)), c.base)
    pen.blob(((0.6, 0.68), (0.72, 0.7), (0.73, 0.82), (0.66, 0.91), (0.58, 0.82)), c.light)
    _rimmed(pen, 0.38, 0.83, 0.15, 0.12, c.base, c.dark)
    pen.stroke(((0.34, 0.955), (0.5, 0.955)), 0.09, c.dark)
    pen.stroke(((0.62, 0.955), (0.74, 0.955)), 0.09, c.dark)
    _rimmed(pen, 0.61, 0.5, 0.235, 0.19, c.base, c.dark)
    pen.ellipse(0.76, 0.56, 0.095, 0.08, c.light)
    pen.ellipse(0.82, 0.525, 0.036, 0.03, BLACK)
    _eye(pen, c, 0.68, 0.45, 0.07)


def _bear(pen: Pen, c: Palette) -> None:
    """Round ears and a light muzzle on a big stocky body."""
    for x in (0.27, 0.71):
        pen.ellipse(x, 0.11, 0.11, 0.11, c.base)
        pen.ellipse(x, 0.12, 0.055, 0.055, c.dark)
    for x in (0.28, 0.66):
        pen.ellipse(x, 0.93, 0.15, 0.08, c.dark)
    pen.ellipse(0.47, 0.7, 0.36, 0.27, c.base)
    pen.ellipse(0.51, 0.74, 0.19, 0.17, c.light)
    for shoulder, paw in (((0.2, 0.58), (0.12, 0.76)), ((0.76, 0.58), (0.84, 0.76))):
        pen.stroke((shoulder, paw), 0.15, c.dark)
    _rimmed(pen, 0.5, 0.31, 0.3, 0.25, c.base, c.dark)
    pen.ellipse(0.57, 0.41, 0.15, 0.115, c.light)
    pen.ellipse(0.59, 0.365, 0.06, 0.045, BLACK)
    _eye(pen, c, 0.4, 0.28)
    _eye(pen, c, 0.7, 0.28)


def _bird(pen: Pen, c: Palette) -> None:
    """A beak, a wing, tail feathers and two thin legs."""
    for x in (0.42, 0.56):
        pen.stroke(((x, 0.72), (x, 0.97)), 0.045, LEG)
        pen.stroke(((x - 0.03, 0.975), (x + 0.09, 0.975)), 0.045, LEG)
    pen.polygon(((0.02, 0.4), (0.12, 0.36), (0.36, 0.56), (0.28, 0.7), (0.04, 0.56)), c.dark)
    pen.polygon(((0.74, 0.22), (0.95, 0.33), (0.74, 0.43)), BEAK)
    pen.polygon(((0.76, 0.33), (0.95, 0.33), (0.74, 0.43)), LEG)
    pen.blob(
        (
            (0.4, 0.22),
            (0.6, 0.06),
            (0.78, 0.16),
            (0.8, 0.4),
            (0.76, 0.64),
            (0.56, 0.8),
            (0.3, 0.74),
            (0.16, 0.54),
            (0.34, 0.42),
        ),
        c.base,
    )
    pen.blob(((0.7, 0.48), (0.77, 0.5), (0.74, 0.66), (0.58, 0.78), (0.5, 0.74), (0.64, 0.64)), c.light)
    pen.blob(((0.52, 0.44), (0.56, 0.58), (0.42, 0.7), (0.16, 0.66), (0.28, 0.56), (0.36, 0.44)), c.dark)
    _eye(pen, c, 0.65, 0.26, 0.075)


def _turtle(pen: Pen, c: Palette) -> None:
    """A domed shell with a pattern, a long neck and short legs."""
    skin = _between(c.base, c.light)
    pen.polygon(((0.02, 0.9), (0.14, 0.76), (0.2, 0.88)), skin)
    for x in (0.2, 0.56):
        pen.stroke(((x, 0.8), (x, 0.93)), 0.15, skin)
    pen.stroke(((0.62, 0.8), (0.76, 0.66), (0.79, 0.4)), 0.15, skin)
    pen.ellipse(0.8, 0.35, 0.145, 0.135, skin)
    pen.stroke(((0.82, 0.43), (0.88, 0.43), (0.915, 0.4)), 0.02, c.line)
    pen.blob(
        (
            (0.05, 0.82),
            (0.08, 0.56),
            (0.22, 0.34),
            (0.38, 0.28),
            (0.54, 0.34),
            (0.68, 0.56),
            (0.71, 0.82),
            (0.38, 0.86),
        ),
        c.base,
    )
    pen.polygon(((0.28, 0.68), (0.24, 0.53), (0.31, 0.41), (0.45, 0.41), (0.52, 0.53), (0.48, 0.68)), c.dark)
    pen.polygon(((0.09, 0.72), (0.12, 0.56), (0.17, 0.55), (0.21, 0.71)), c.dark)
    pen.polygon(((0.67, 0.72), (0.64, 0.56), (0.59, 0.55), (0.55, 0.71)), c.dark)
    pen.stroke(((0.07, 0.81), (0.38, 0.84), (0.69, 0.81)), 0.07, c.dark)
    _eye(pen, c, 0.82, 0.31, 0.062)


def _elephant(pen: Pen, c: Palette) -> None:
    """A trunk, a huge ear and thick legs."""
    pen.stroke(((0.1, 0.48), (0.04, 0.58), (0.05, 0.7)), 0.04, c.dark)
    _legs(pen, c, (0.15, 0.29, 0.42, 0.53), 0.7, 0.15)
    pen.blob(((0.05, 0.6), (0.1, 0.36), (0.32, 0.26), (0.56, 0.32), (0.62, 0.6), (0.54, 0.8), (0.12, 0.8)), c.base)
    pen.stroke(((0.76, 0.36), (0.84, 0.52), (0.81, 0.72), (0.84, 0.84), (0.91, 0.8)), 0.11, c.base)
    pen.stroke(((0.74, 0.36), (0.79, 0.5)), 0.15, c.base)
    pen.ellipse(0.64, 0.31, 0.24, 0.25, c.base)
    pen.stroke(((0.7, 0.55), (0.76, 0.6), (0.92, 0.56)), 0.045, WHITE)
    pen.blob(((0.53, 0.1), (0.57, 0.36), (0.5, 0.58), (0.34, 0.6), (0.2, 0.36), (0.3, 0.1)), c.dark)
    pen.blob(
        ((0.485, 0.17), (0.51, 0.36), (0.46, 0.51), (0.36, 0.52), (0.27, 0.35), (0.34, 0.17)), _between(c.base, c.light)
    )
    _eye(pen, c, 0.72, 0.27, 0.066)


KIND_PAINTERS: dict[str, Callable[[Pen, Palette], None]] = {
    "cat": _cat,
    "dog": _dog,
    "fox": _fox,
    "rabbit": _rabbit,
    "bear": _bear,
    "bird": _bird,
    "turtle": _turtle,
    "elephant": _elephant,
}


@lru_cache(maxsize=512)
def _figure(character: Character, faces_right: bool, time: str, canvas: int) -> Image.Image:
    """The outlined character on a transparent square of twice `SPRITE_SIZE` of the canvas."""
    side = 2 * round(SPRITE_SIZE * canvas)
    unit = 2 * canvas
    palette = PALETTES[character.colour]
    figure = Image.new("RGBA", (side, side))
    edge = CHARACTER_SIZE * unit
    pen = Pen(figure, edge, (side / 2 - 0.49 * edge, SPRITE_GROUND * unit - edge))
    KIND_PAINTERS[character.kind](pen, palette)

    mask = (
        figure.getchannel("A")
        .filter(ImageFilter.GaussianBlur(OUTLINE * unit))
        .point([max(0, min(255, 7 * a - 140)) for a in range(256)])
    )
    outlined = Image.new("RGBA", (side, side), palette.line)
    outlined.putalpha(mask)
    outlined.alpha_composite(figure)
    if time == "night":
        outlined = Image.merge(
            "RGBA",
            [
                band.point([round(level * dim) for level in range(256)])
                for band, dim in zip(outlined.split(), (0.93, 0.92, 0.95, 1), strict=True)
            ],
        )
    return outlined if faces_right else outlined.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@lru_cache(maxsize=512)
def _sprite(character: Character, faces_right: bool, time: str, canvas: int) -> Image.Image:
    """The character and its shadow on the ground, on a transparent square of `SPRITE_SIZE` of the canvas."""
    figure = _figure(character, faces_right, time, canvas)
    unit = 2 * canvas
    shadow = Image.new("L", figure.size)
    Pen(shadow, unit, (figure.width / 2, SPRITE_GROUND * unit)).ellipse(0, -0.005, 0.2, 0.03, 110)
    sprite = Image.new("RGBA", figure.size, (20, 20, 50))
    sprite.putalpha(shadow.filter(ImageFilter.GaussianBlur(OUTLINE * unit)))
    sprite.alpha_composite(figure)
    return sprite.resize((figure.width // 2, figure.height // 2), Image.Resampling.BOX)


@lru_cache(maxsize=256)
def _shade(colour: RGB, time: str) -> RGB:
    """A scenery colour as it looks at that time: by night dark and bluish."""
    if time == "day":
        return colour
    red, green, blue = colour
    return round(0.37 * red + 2), round(0.36 * green + 7), round(0.36 * blue + 26)


SKIES = {"day": ((104, 186, 244), (206, 234, 250)), "night": ((14, 18, 58), (44, 52, 112))}


@lru_cache(maxsize=16)
def _sky(time: str, canvas: int) -> Image.Image:
    """The vertical gradient behind everything."""
    column = Image.new("RGB", (1, 2))
    for y, colour in enumerate(SKIES[time]):
        column.putpixel((0, y), colour)
    return column.resize((canvas, canvas), Image.Resampling.BILINEAR)


def _crescent(x: float, y: float, size: float) -> list[Point]:
    """The outline of a crescent moon, its horns tilted to the upper right."""
    turns = [step / 8 - 1 for step in range(17)]
    rim = [(-math.cos(2.1 * turn), math.sin(2.1 * turn)) for turn in turns]
    horn_x, horn_y = rim[-1]
    hollow = [(horn_x - 0.75 * math.cos(math.pi / 2 * turn), -horn_y * math.sin(math.pi / 2 * turn)) for turn in turns]
    return [(x + size * (0.9 * dx + 0.42 * dy), y + size * (0.9 * dy - 0.42 * dx)) for dx, dy in rim + hollow]


def _heavens(pen: Pen, rng: random.Random, time: str, light: RGB | None = None) -> None:
    """Sun and clouds, or moon and stars; `light` is the colour of sun or moon, in place of its own."""
    x, y = rng.choice((0.16, 0.5, 0.84)) + rng.uniform(-0.05, 0.05), rng.uniform(0.12, 0.16)
    if time == "night":
        for slot in range(5):
            star_x, star_y = 0.1 + 0.2 * slot + rng.uniform(-0.07, 0.07), rng.uniform(0.04, 0.34)
            if abs(star_x - x) > 0.14:
                pen.ellipse(star_x, star_y, 0.011, 0.011, (226, 226, 200))
        pen.polygon(_crescent(x, y, 0.085), light or (250, 240, 190))
        return
    pen.ellipse(x, y, 0.115, 0.115, (186, 218, 220))
    pen.ellipse(x, y, 0.085, 0.085, light or (255, 222, 84))
    for slot in (0.16, 0.5, 0.84):
        if abs(slot - x) > 0.2:
            cloud_x, cloud_y = slot + rng.uniform(-0.06, 0.06), rng.uniform(0.1, 0.24)
            pen.ellipse(cloud_x, cloud_y, 0.12, 0.034, (244, 250, 254))
            pen.ellipse(cloud_x + rng.uniform(-0.03, 0.03), cloud_y - 0.025, 0.06, 0.045, (244, 250, 254))


def _forest(pen: Pen, rng: random.Random, time: str) -> None:
    """Conifers and round trees in two rows on dark ground."""
    pen.ridge(0.5, 0.03, 2, rng.uniform(0, math.tau), _shade((118, 176, 136), time))
    for slot in range(5):
        x, top = 0.06 + 0.22 * slot + rng.uniform(-0.03, 0.03), rng.uniform(0.14, 0.24)
        pen.rectangle(x - 0.022, 0.5, x + 0.022, 0.74, _shade((112, 80, 58), time))
        if rng.random() < 0.6:
            leaves = _shade(rng.choice(((48, 118, 84), (58, 130, 88))), time)
            pen.polygon(((x, top), (x + 0.1, top + 0.22), (x - 0.1, top + 0.22)), leaves)
            pen.polygon(((x, top + 0.12), (x + 0.13, top + 0.44), (x - 0.13, top + 0.44)), leaves)
        else:
            pen.ellipse(x, top + 0.2, 0.115, 0.17, _shade((84, 146, 76), time))
    pen.ridge(0.68, 0.012, 1.5, rng.uniform(0, math.tau), _shade((72, 118, 66), time))
    pen.ridge(0.8, 0.012, 1, rng.uniform(0, math.tau), _shade((84, 132, 72), time))


def _meadow(pen: Pen, rng: random.Random, time: str) -> None:
    """Rolling light hills with a few flowers."""
    pen.ridge(0.5, 0.05, 1, rng.uniform(0, math.tau), _shade((184, 222, 150), time))
    pen.ridge(0.6, 0.04, 1.2, rng.uniform(0, math.tau), _shade((162, 214, 116), time))
    pen.ridge(0.72, 0.025, 0.8, rng.uniform(0, math.tau), _shade((142, 204, 92), time))
    petals = _shade(rng.choice(((255, 250, 240), (255, 236, 130), (252, 190, 210))), time)
    for slot in (0.08, 0.36, 0.63, 0.92):
        x, y = slot + rng.uniform(-0.05, 0.05), rng.uniform(0.91, 0.96)
        pen.ellipse(x, y, 0.02, 0.02, petals)


def _sail(pen: Pen, x: float, sea: float, time: str) -> None:
    """A boat on the horizon."""
    pen.polygon(((x, sea - 0.2), (x + 0.11, sea - 0.03), (x, sea - 0.03)), _shade((255, 252, 246), time))
    pen.polygon(((x - 0.02, sea - 0.16), (x - 0.02, sea - 0.03), (x - 0.09, sea - 0.03)), _shade((238, 226, 214), time))
    pen.polygon(
        ((x - 0.1, sea - 0.015), (x + 0.12, sea - 0.015), (x + 0.07, sea + 0.035), (x - 0.06, sea + 0.035)),
        _shade((152, 88, 62), time),
    )


def _palm(pen: Pen, x: float, time: str) -> None:
    """A palm tall enough to look out behind a character."""
    top = 0.29
    pen.polygon(
        ((x - 0.012, top), (x + 0.022, top), (x + 0.026, 0.5), (x + 0.05, 0.76), (x - 0.02, 0.76), (x - 0.024, 0.5)),
        _shade((160, 112, 72), time),
    )
    for reach, rise in ((-0.17, 0.08), (0.17, 0.08), (-0.14, -0.03), (0.14, -0.03)):
        pen.polygon(
            (
                (x, top + 0.03),
                (x + 0.3 * reach, top - 0.055 + 0.3 * rise),
                (x + 0.7 * reach, top - 0.04 + 0.6 * rise),
                (x + reach, top + 0.02 + rise),
                (x + 0.55 * reach, top + 0.02 + 0.5 * rise),
            ),
            _shade((58, 150, 84), time),
        )


def _beach(pen: Pen, rng: random.Random, time: str) -> None:
    """The sea, a strip of foam and sand, with a sail or a palm."""
    sea = rng.uniform(0.44, 0.47)
    pen.rectangle(0, sea, 1, 0.75, _shade((44, 146, 204), time))
    pen.rectangle(0, sea + 0.12, 1, 0.75, _shade((72, 176, 218), time))
    for slot in (0.14, 0.5, 0.86):
        x, y = slot + rng.uniform(-0.08, 0.08), sea + rng.uniform(0.04, 0.09)
        pen.rectangle(x - 0.06, y, x + 0.06, y + 0.016, _shade((150, 212, 236), time))
    has_palm = rng.random() < 0.5
    if not has_palm:
        _sail(pen, rng.choice((0.1, 0.5, 0.9)) + rng.uniform(-0.03, 0.03), sea, time)
    phase = rng.uniform(0, math.tau)
    pen.ridge(0.66, 0.014, 1.5, phase, _shade((226, 242, 244), time))
    pen.ridge(0.685, 0.014, 1.5, phase, _shade((246, 226, 178), time))
    if has_palm:
        _palm(pen, rng.choice((0.09, 0.5, 0.91)) + rng.uniform(-0.02, 0.02), time)


def _city(pen: Pen, rng: random.Random, time: str) -> None:
    """A skyline whose windows are lit by night, a pavement and a road."""
    glass = (242, 196, 100) if time == "night" else (190, 208, 222)
    walls = ((134, 146, 170), (160, 160, 180), (146, 138, 158))
    # Multiples of 1/64 keep the windows crisp in the smallest pictures.
    pixel = 1 / 64
    for index in range(6):
        wall, floors, left = _shade(walls[index % 3], time), rng.choice((3, 4, 4, 5)), 11 * index * pixel
        top, right = (41 - 6 * floors) * pixel, left + 11 * pixel
        pen.rectangle(left, top, right, 0.7, wall)
        for column in (2, 7):
            pen.rectangle(left + column * pixel, top + 3 * pixel, left + (column + 2) * pixel, 41 * pixel, glass)
        for floor in range(1, floors):
            pen.rectangle(left, top + 6 * floor * pixel, right, top + (6 * floor + 3) * pixel, wall)
    pen.rectangle(0, 44 * pixel, 1, 0.9, _shade((200, 198, 196), time))
    pen.rectangle(0, 0.9, 1, 1, _shade((112, 114, 124), time))
    offset = rng.uniform(0, 0.2)
    for dash in range(-1, 4):
        pen.rectangle(offset + 0.3 * dash, 0.94, offset + 0.3 * dash + 0.15, 0.962, _shade((220, 218, 206), time))


def _desert(pen: Pen, rng: random.Random, time: str) -> None:
    """Dunes, a table mountain and tall cacti."""
    x = rng.uniform(0.2, 0.8)
    pen.polygon(((x - 0.26, 0.64), (x - 0.18, 0.4), (x + 0.16, 0.4), (x + 0.26, 0.64)), _shade((214, 146, 110), time))
    pen.ridge(0.56, 0.04, 1, rng.uniform(0, math.tau), _shade((240, 206, 146), time))
    plant = _shade((70, 140, 88), time)
    for slot in rng.sample((0.07, 0.5, 0.93), 2):
        x, top = slot + rng.uniform(-0.02, 0.02), rng.uniform(0.25, 0.31)
        pen.rectangle(x - 0.03, top, x + 0.03, 0.72, plant)
        pen.ellipse(x, top, 0.03, 0.03, plant)
        for side, level in ((-1, 0.15), (1, 0.1)):
            near, far = sorted((x, x + side * 0.09))
            pen.rectangle(near, top + level, far, top + level + 0.045, plant)
            tip = x + side * 0.08
            pen.rectangle(tip - 0.02, top + level - 0.08, tip + 0.022, top + level + 0.045, plant)
    pen.ridge(0.68, 0.03, 0.8, rng.uniform(0, math.tau), _shade((232, 188, 122), time))
    pen.ridge(0.8, 0.02, 1, rng.uniform(0, math.tau), _shade((238, 198, 136), time))


def _mountains(pen: Pen, rng: random.Random, time: str) -> None:
    """Snow-capped peaks behind pale ground."""
    peaks = [(0.12, 0.3, (150, 164, 190)), (0.88, 0.28, (150, 164, 190)), (0.5, 0.16, (124, 138, 168))]
    for middle, height, rock in peaks:
        x, top = middle + rng.uniform(-0.06, 0.06), height + rng.uniform(-0.04, 0.04)
        slope = 0.66
        foot = (0.72 - top) * slope
        pen.polygon(((x, top), (x + foot, 0.72), (x - foot, 0.72)), _shade(rock, time))
        cap, rim = 0.15, 0.15 * slope
        pen.polygon(
            (
                (x, top),
                (x + rim, top + cap),
                (x + 0.45 * rim, top + 0.75 * cap),
                (x, top + 1.15 * cap),
                (x - 0.45 * rim, top + 0.75 * cap),
                (x - rim, top + cap),
            ),
            _shade((252, 253, 255), time),
        )
    pen.ridge(0.68, 0.02, 1, rng.uniform(0, math.tau), _shade((198, 212, 228), time))
    pen.ridge(0.78, 0.015, 1, rng.uniform(0, math.tau), _shade((216, 227, 238), time))


PLACE_PAINTERS: dict[str, Callable[[Pen, random.Random, str], None]] = {
    "forest": _forest,
    "meadow": _meadow,
    "beach": _beach,
    "city": _city,
    "desert": _desert,
    "mountains": _mountains,
}


def draw(scene: Scene, size: int = 64) -> Image.Image:
    """The scene as an RGB picture of `size` x `size` pixels; equal scenes give equal pictures.

    A scene that another is made of by a change of one thing looks the same but for that.
    """
    picture = _scenery(scene, SUPERSAMPLING * size)
    for character, side in _placed(scene):
        sprite = _sprite(character, side != "right", scene.time, picture.width)
        picture.paste(sprite, _corner(scene, side, picture.width), sprite)
    return picture.resize((size, size), Image.Resampling.BOX)


def boxes(scene: Scene, size: int = 64) -> dict[str, tuple[float, float, float, float]]:
    """Where things are in the picture of that size: the box round the pixels that show each, by its name.

    Names are the animals' kinds, and sun or moon where at least half of it can be seen. An animal's pixels are those
    that it covers at least half of, its shadow left out. A box is left, top, right and lower edge in shares of the
    picture.
    """
    canvas = SUPERSAMPLING * size
    nothing = Image.new("L", (canvas, canvas))
    masks = {}
    for character, side in _placed(scene):
        mask = nothing.copy()
        figure = _figure(character, side != "right", scene.time, canvas).getchannel("A")
        mask.paste(
            figure.resize((figure.width // 2, figure.height // 2), Image.Resampling.BOX), _corner(scene, side, canvas)
        )
        # Who is painted later hides who stands behind.
        masks = {name: ImageChops.darker(other, ImageChops.invert(mask)) for name, other in masks.items()}
        masks[character.kind] = mask

    # Whatever hides the light hides it in another colour too.
    visible = _painted(_scenery(scene, canvas, MAGENTA), MAGENTA)
    for mask in masks.values():
        visible = ImageChops.darker(visible, ImageChops.invert(mask))
    whole = Image.new("RGB", (canvas, canvas))
    _heavens(Pen(whole, canvas), _stream(scene, "heavens"), scene.time, MAGENTA)
    if _area(visible) >= _area(_painted(whole, MAGENTA)) / 2:
        masks[LIGHTS[scene.time]] = visible

    found = {}
    for name, mask in masks.items():
        shown = mask.resize((size, size), Image.Resampling.BOX).point([0] * 128 + [255] * 128)
        left, top, right, lower = shown.getbbox() or (0, 0, 0, 0)
        found[name] = (left / size, top / size, right / size, lower / size)
    return found


def _stream(scene: Scene, part: str) -> random.Random:
    """What decides how a part of a scene looks: its own for each, so that a change of one leaves the others."""
    return random.Random(f"{scene.decor}/{part}")


def _placed(scene: Scene) -> list[tuple[Character, str]]:
    """Who stands where, in the order in which they are painted."""
    return list(zip(scene.characters, (scene.side, OPPOSITE.get(scene.side, "")), strict=False))


def character_rows(size: int) -> slice:
    """The rows of a picture of so many pixels in which characters stand."""
    return slice(size * 3 // 8, size * 7 // 8)


def _corner(scene: Scene, side: str, canvas: int) -> tuple[int, int]:
    """Where the sprite of whoever stands on a side begins, in pixels of the canvas."""
    rng = _stream(scene, "spots")
    spots = {name: (rng.uniform(-JITTER, JITTER), rng.uniform(-JITTER, JITTER) / 2) for name in SIDES}
    x, y = SIDE_X[side] + spots[side][0], FEET_Y + spots[side][1]
    return round((x - SPRITE_SIZE / 2) * canvas), round((y - SPRITE_GROUND) * canvas)


def _scenery(scene: Scene, canvas: int, light: RGB | None = None) -> Image.Image:
    """Sky and place; `light` is the colour of sun or moon, in place of its own."""
    picture = _sky(scene.time, canvas).copy()
    pen = Pen(picture, canvas)
    _heavens(pen, _stream(scene, "heavens"), scene.time, light)
    PLACE_PAINTERS[scene.place](pen, _stream(scene, scene.place), scene.time)
    return picture


def _painted(picture: Image.Image, colour: RGB) -> Image.Image:
    """A mask of the pixels of just this colour."""
    unlike = ImageChops.difference(picture, Image.new("RGB", picture.size, colour)).convert("RGB").split()
    return ImageChops.lighter(ImageChops.lighter(unlike[0], unlike[1]), unlike[2]).point([255] + [0] * 255)


def _area(mask: Image.Image) -> int:
    """How many pixels of a mask are set."""
    return mask.histogram()[255]
