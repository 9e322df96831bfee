"""A report as blocks, which become Markdown with pictures beside it, or one HTML page that carries them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from minigpt5.metrics.intervals import Interval
from minigpt5.utils.html import image_html, page

# Characters of a cell that may go over several lines.
LONG = 40
_STYLE = """<style>
main { max-width: 68rem; font-size: 1.05rem; } h2 { margin: 3rem 0 .8rem; font-size: 1.5rem; } p { margin: .8rem 0; }
.table { overflow-x: auto; } table { border-collapse: collapse; width: 100%; margin: 1rem 0; font-size: .92rem;
  font-variant-numeric: tabular-nums; background: var(--card); border-radius: 12px; }
th, td { padding: .45rem .8rem; text-align: left; border-bottom: 1px solid var(--line); white-space: nowrap; }
td.long { white-space: normal; min-width: 15rem; } code { font-size: .88em; overflow-wrap: anywhere; }
.picture img { width: auto; max-width: 100%; background: #fff; padding: .4rem; }
.PASS { color: #2c7a4b; } .FAIL { color: #c0392b; } .UNDECIDED { color: #9a6b00; }
.PASS, .FAIL, .UNDECIDED { font-weight: 700; }
</style>"""


@dataclass(frozen=True)
class Heading:
    """Of a section."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """May hold `code`, **bold** and [links](address)."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells, plain text."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Plot:
    """A picture file and what it shows."""

    file: Path
    alt: str


Block = Heading | Paragraph | Table | Plot


def cell(interval: Interval | None) -> str:
    """A figure with its interval; nothing where there is none."""
    return "" if interval is None else f"{interval.estimate:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def markdown(title: str, blocks: Sequence[Block], folder: Path) -> str:
    """The report as Markdown for a file in `folder`."""
    parts = [f"# {title}"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"## {block.text}")
        elif isinstance(block, Paragraph):
            parts.append(block.text)
        elif isinstance(block, Plot):
            parts.append(f"![{block.alt}]({block.file.relative_to(folder).as_posix()})")
        else:
            lines = [block.header, ["---"] * len(block.header), *block.rows]
            parts.append("\n".join(f"| {' | '.join(cells)} |" for cells in lines))
    return "\n\n".join(parts) + "\n"


def html(title: str, blocks: Sequence[Block]) -> str:
    """The report as one page with nothing beside it."""
    parts = [_STYLE, f"<header><h1>{escape(title)}</h1></header>"]
    for block in blocks:
        if isinstance(block, Heading):
            parts.append(f"<h2>{escape(block.text)}</h2>")
        elif isinstance(block, Paragraph):
            parts.append(f"<p>{_inline(block.text)}</p>")
        elif isinstance(block, Plot):
            with Image.open(block.file) as image:
                parts.append(image_html(image, block.alt))
        else:
            head = "".join(f"<th>{_inline(text)}</th>" for text in block.header)
            body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in block.rows)
            parts.append(f'<div class="table"><table><tr>{head}</tr>{body}</table></div>')
    return page(title, "".join(parts))


def _cell(text: str) -> str:
    """A cell of a table; sentences go over several lines, figures over one."""
    opened = '<td class="long">' if len(text) > LONG else "<td>"
    return f"{opened}{_inline(text)}</td>"


def _inline(text: str) -> str:
    text = re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text))
    text = re.sub(r"\*\*(.*?)\*\*", r"<b>\1</b>", text)
    text = re.sub(r"\[([^\]]+)\]\(([^)]+)\)", r'<a href="\2">\1</a>', text)
    return re.sub(r"\b(PASS|FAIL|UNDECIDED)\b", r'<span class="\1">\1</span>', text)
