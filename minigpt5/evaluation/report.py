"""Results as JSON and as Markdown: figures with their intervals, what is missing, and the settings that made them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from minigpt5.evaluation.measure import Measurements
from minigpt5.metrics.intervals import Interval
from minigpt5.utils.files import write_json, write_text

# Items that a page names of those that were passed over.
SHOWN = 10


def write_report(
    out: Path,
    title: str,
    settings: dict[str, Any],
    measurements: Measurements,
    bounds: dict[str, dict[str, dict[str, float]]] | None = None,
) -> None:
    """Write `results.json` and `results.md` into a folder.

    A figure that is no finite number is not computed: JSON has no word for it, and what it would say is nothing.

    Args:
        bounds: of tasks, what the judge's figures lie between.
    """
    not_computed = dict(measurements.not_computed)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name, task in measurements.tasks.items():
        told = {figure: _entry(value) for figure, value in task.figures.items()}
        figures[name] = _without_not_finite(told, name, not_computed)
    finite_bounds = {}
    for name, columns in (bounds or {}).items():
        rows = {figure: {column: told[figure] for column, told in columns.items()} for figure in columns["floor"]}
        rows = _without_not_finite(rows, f"bounds, {name}", not_computed)
        finite_bounds[name] = {column: {figure: row[column] for figure, row in rows.items()} for column in columns}
    record = {
        "title": title,
        "settings": settings,
        "tasks": {
            name: {
                "items": len(task.items),
                "groups": len(set(task.groups)),
                "pictures": task.pictures,
                "figures": figures[name],
            }
            for name, task in measurements.tasks.items()
        },
        "passed_over": measurements.passed_over,
        "bounds": finite_bounds,
        "not_computed": not_computed,
        "notes": measurements.notes,
    }
    write_json(out / "results.json", record)
    write_text(out / "results.md", markdown(record))


def _entry(value: Interval | float) -> dict[str, float]:
    return value._asdict() if isinstance(value, Interval) else {"estimate": value}


def _without_not_finite(
    entries: Mapping[str, dict[str, float]], place: str, not_computed: dict[str, str]
) -> dict[str, dict[str, float]]:
    """The figures whose numbers are all finite; the others are noted, each with what it came to."""
    kept = {}
    for figure, numbers in entries.items():
        odd = {name: value for name, value in numbers.items() if not math.isfinite(value)}
        if odd:
            told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in odd.items())
            not_computed[f"{figure} ({place})"] = f"it came out as no finite number: {told}"
        else:
            kept[figure] = numbers
    return kept


def markdown(record: dict[str, Any]) -> str:
    """The page of a record that `write_report` made."""
    tasks = record["tasks"]
    names = list(dict.fromkeys(name for task in tasks.values() for name in task["figures"]))
    rows = [[name, *(str(task[name]) for task in tasks.values())] for name in ("items", "pictures")]
    rows += [[name, *(_cell(task["figures"].get(name)) for task in tasks.values())] for name in names]
    parts = [f"# {record['title']}", markdown_table(["", *tasks], rows)]
    if any("low" in entry for task in tasks.values() for entry in task["figures"].values()):
        parts.append(
            "In brackets: 95 % bootstrap intervals, drawn over captions, stories, talks or the pictures that are asked "
            "about. Figures of whole sets of pictures have none."
        )
    for name, bounds in record["bounds"].items():
        figures = list(bounds["floor"])
        rows = [[figure, *(f"{column[figure]:.3f}" for column in bounds.values())] for figure in figures]
        columns = [column.replace("_", " ") for column in bounds]
        parts += [f"## Bounds of the judge's figures: {name}", markdown_table(["", *columns], rows)]
    if record["bounds"]:
        parts.append(
            "Floor: the same pictures judged for scenes shuffled among them. Ceiling: true pictures of the same "
            "scenes. Judge error: 1 minus its figure on 1000 other true pictures."
        )
    if record["passed_over"]:
        reasons = [f"- {name}: {reason}" for name, reason in record["passed_over"].items()]
        more = [f"- and {len(reasons) - SHOWN} more, in results.json"] if len(reasons) > SHOWN else []
        asked = sum(task["items"] for task in tasks.values())
        told = f"{len(reasons)} of {asked + len(reasons)} items could not be asked, and are in no figure:"
        parts += ["## Passed over", told, "\n".join([*reasons[:SHOWN], *more])]
    if record["not_computed"]:
        lacking: dict[str, list[str]] = {}
        for name, reason in record["not_computed"].items():
            lacking.setdefault(reason, []).append(name)
        parts += ["## Not computed", "\n".join(f"- {', '.join(names)}: {reason}" for reason, names in lacking.items())]
    if record["notes"]:
        parts += ["## Notes", "\n".join(f"- {note}" for note in record["notes"])]
    settings = [[name, f"`{value}`"] for name, value in _flat(record["settings"]).items() if value is not None]
    parts += ["## Settings", markdown_table(["setting", "value"], settings)]
    return "\n\n".join(parts) + "\n"


def _cell(entry: dict[str, float] | None) -> str:
    if entry is None:
        return ""
    value = f"{entry['estimate']:.3f}"
    return f"{value} [{entry['low']:.3f}, {entry['high']:.3f}]" if "low" in entry else value


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in settings.items():
        flat |= _flat(value, f"{prefix}{name}: ") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown; line breaks in its cells are written as in Python."""
    lines = [[*header], ["---"] * len(header), *rows]
    told = ([cell.replace("|", "\\|").replace("\n", "\\n") for cell in cells] for cells in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in told)
