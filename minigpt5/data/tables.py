"""Tables of two columns with a tab between them, as CC3M's captions come.

Quotes are CSV's where they are whole: a field in quotes may hold tabs, quotes written twice and, where no tab is in it,
line breaks. A quote that stands by itself, as captions have them, is a quote and reaches no further than its line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from minigpt5.utils.json_files import decode_text, shortened

_FIELD = r'(?:"((?:[^"]|"")*)"|([^\t\n]*))'
_ROW = re.compile(rf"{_FIELD}\t{_FIELD}")


def read_table(path: Path, columns: tuple[str, str]) -> Iterator[tuple[int, list[str]]]:
    """Line and fields of each row below the header; empty lines are none.

    Raises:
        ValueError: naming file and line, if the header is another, or a row has other columns or is not UTF-8.
    """
    rows = _rows(path)
    line, header = next(rows, (1, []))
    expected = " and ".join(columns)
    if header != list(columns):
        raise ValueError(f"{path}, line {line}: columns are {shortened(header)}, expected {expected}")
    for line, fields in rows:
        if len(fields) != len(columns):
            raise ValueError(f"{path}, line {line}: {len(fields)} columns, expected {expected}")
        yield line, fields


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and fields; of what is no row of two, as many as its first line has."""
    with open(path, "rb") as file:
        lines = ((number, _text(line, path, number)) for number, line in enumerate(file, start=1))
        for number, first in lines:
            if not first.strip():
                continue
            text = first
            if first.startswith('"') and "\t" not in first:
                # A caption over several lines. Had none of them a tab, the quote would be one that stands by itself.
                for _, more in lines:
                    text += f"\n{more}"
                    if "\t" in more:
                        break
            row = _ROW.fullmatch(text)
            yield number, first.split("\t") if row is None else [*_fields(row)]


def _text(line: bytes, path: Path, number: int) -> str:
    return decode_text(line, f"{path}, line {number}").removesuffix("\n").removesuffix("\r")


def _fields(row: re.Match) -> Iterator[str]:
    for quoted, plain in (row.group(1, 2), row.group(3, 4)):
        yield plain if quoted is None else quoted.replace('""', '"')


def table_row(*fields: str) -> str:
    """A line of a table that `read_table` reads as it is here, line breaks as spaces."""
    told = (" ".join(field.splitlines()) for field in fields)
    return "\t".join(
        f'"{field.replace(chr(34), chr(34) * 2)}"' if re.search(r'["\t]', field) else field for field in told
    )
