"""Curves over a setting, curves of trainings, and what systems painted side by side; all axes begin at zero."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from minigpt5.metrics.intervals import Interval
from minigpt5.metrics.weights import require
from minigpt5.utils.files import whole_file

_COLOURS = ("#b4532f", "#2f6f8f", "#6b8e3a", "#7a4f9a")


def plot_curves(
    file: Path,
    xlabel: str,
    panels: Mapping[str, Mapping[str, Mapping[float, Interval]]],
    log: bool = False,
) -> None:
    """Panels side by side, each with curves of figures with their intervals over one setting.

    Args:
        panels: by their y label, curves by name, intervals by the setting's value.
        log: values of the setting double from one to the next.

    Raises:
        ModuleNotFoundError: if matplotlib is not installed.
    """
    figure_module, ticker = require("matplotlib.figure"), require("matplotlib.ticker")
    figure = figure_module.Figure(figsize=(5.2 * len(panels), 3.6), layout="constrained")
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (label, curves) in zip(grid, panels.items(), strict=True):
        for colour, (name, points) in zip(_COLOURS, curves.items(), strict=False):
            values = sorted(points)
            estimates = [points[value].estimate for value in values]
            axes.plot(values, estimates, "o-", color=colour, label=name, markersize=5, linewidth=1.8)
            lows, highs = [points[value].low for value in values], [points[value].high for value in values]
            axes.fill_between(values, lows, highs, color=colour, alpha=0.15, linewidth=0)
        if log:
            axes.set_xscale("log", base=2)
            axes.xaxis.set_major_formatter(ticker.ScalarFormatter())
            axes.set_xticks(sorted({value for points in curves.values() for value in points}))
        # Of few trainings an interval may be far wider than what a figure can be.
        axes.set_ylim(top=max(point.estimate for points in curves.values() for point in points.values()))
        _from_zero(axes)
        axes.set(xlabel=xlabel, ylabel=label)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    lines, names = grid[0].get_legend_handles_labels()
    if len(names) > 1:
        figure.legend(lines, names, loc="outside lower center", ncols=len(names), frameon=False)
    with whole_file(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def plot_trainings(file: Path, panels: Mapping[str, Mapping[str, Mapping[int, float]]]) -> None:
    """A panel a training program or system, in it the marks of each run over its steps.

    Args:
        panels: by title, runs by name, marks by step.

    Raises:
        ModuleNotFoundError: if matplotlib is not installed.
    """
    columns = min(5, len(panels))
    rows = -(-len(panels) // columns)
    figure = require("matplotlib.figure").Figure(figsize=(2.7 * columns, 2.1 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes, (title, runs) in zip(grid, panels.items(), strict=False):
        for colour, marks in zip(_COLOURS, runs.values(), strict=False):
            axes.plot(list(marks), list(marks.values()), ".-", color=colour, linewidth=1)
        axes.set_title(title, fontsize=8)
        axes.set_xlim(left=0)
        _from_zero(axes)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.25)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    with whole_file(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def _from_zero(axes: Any) -> None:
    """Begin the y axis there, for a curve that only looks steep misleads, and leave room for the highest marks."""
    axes.set_ylim(0, 1.08 * axes.get_ylim()[1])


def plot_pictures(file: Path, rows: Mapping[str, Sequence[Image.Image]], captions: Sequence[str]) -> None:
    """A grid of pictures: a row a system, a column an item.

    Raises:
        ModuleNotFoundError: if matplotlib is not installed.
    """
    width, height = len(captions), len(rows)
    figure = require("matplotlib.figure").Figure(figsize=(1.5 * width + 1.9, 1.5 * height + 0.6), layout="constrained")
    grid = figure.subplots(height, width, squeeze=False)
    for axes_row, (name, pictures) in zip(grid, rows.items(), strict=True):
        for axes, picture in zip(axes_row, pictures, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        axes_row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    for axes, caption in zip(grid[0], captions, strict=True):
        axes.set_title(caption, fontsize=7.5, wrap=True)
    with whole_file(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
