"""A downloaded data set checked picture by picture, and an index of what is good, which the readers read.

Into OUT come, a split:

- the index in the data set's own layout, with absolute paths to the pictures of SRC, which are not copied;
- `{split}_bad.jsonl`, a line a missing or broken picture: where it should lie, what is wrong, where it was named, and
  what became of that row.

`report.json` has the counts; it is written last. `checked.jsonl` remembers every picture's verdict with the file's size
and time: a run that was stopped goes on there, and one after a repaired download checks what is new.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, cast

from tqdm import tqdm

from minigpt5.data.emoji import emoji_rows
from minigpt5.data.layouts import (
    PictureFile,
    Row,
    caption_file_rows,
    cc3m_rows,
    mmdialog_rows,
    vist_raw_rows,
    vist_rows,
)
from minigpt5.data.splits import SPLIT_FILES, find_splits
from minigpt5.data.tables import table_row
from minigpt5.utils.files import whole_file, write_json
from minigpt5.utils.images import ImageError, open_image


class Layout(NamedTuple):
    """How a download is found and read: `files` as `find_splits` takes it, or a file that holds all of `splits`."""

    files: str
    rows: Callable[[Path, str], Iterator[Row]]
    splits: tuple[str, ...] = ()


# The first that matches counts: what is tidied before what is raw.
LAYOUTS = {
    "cc3m": (Layout("cc3m_{split}.tsv", cc3m_rows), Layout("{split}/**/*.txt", caption_file_rows)),
    "vist": (
        Layout("{split}_cleaned.json", vist_rows),
        *(Layout(files, vist_raw_rows) for files in SPLIT_FILES["vist-raw"]),
    ),
    "mmdialog": (Layout("{split}/{split}_conversations.txt", mmdialog_rows),),
    "emoji": (Layout("emoji.json", emoji_rows, ("train", "validation", "test")),),
}


def find_layout(kind: str, source: Path) -> tuple[Layout, list[str]]:
    """The layout of a download and its splits.

    Raises:
        FileNotFoundError: if the folder is in none of the kind's layouts.
    """
    for layout in LAYOUTS[kind]:
        splits = find_splits(source, [layout.files]) or (layout.splits if (source / layout.files).exists() else ())
        if splits:
            return layout, list(splits)
    files = " nor ".join(layout.files.replace("{split}", "*") for layout in LAYOUTS[kind])
    hint = "; webdataset shards need no index: open them as cc3m-shards" if kind == "cc3m" else ""
    raise FileNotFoundError(f"{source} holds neither {files}: no {kind} download{hint}")


def check_picture(path: str) -> str | None:
    """What is wrong with a picture file, or `None`: every pixel is decoded."""
    try:
        open_image(path)
    except ImageError as error:
        return str(error).removeprefix(f"{path}: ")
    return None


MISSING = "no such file"


class Verdicts:
    """What is wrong with each picture, `None` for a good one; kept in a journal, so that it is found out once."""

    def __init__(self, journal: Path):
        self.journal = journal
        self._known: dict[str, tuple[list[int], str | None]] = {}
        if journal.exists():
            for line in journal.read_bytes().splitlines():
                try:
                    path, stamp, problem = json.loads(line)
                    self._known[path] = stamp, problem
                except (ValueError, TypeError, RecursionError):  # as a line half-written when a run was killed
                    continue

    def check(self, paths: Iterable[str], workers: int = 1) -> dict[str, str | None]:
        """The verdict on each of these files, in `workers` processes where it is not known."""
        verdicts, unknown = {}, {}
        for path in dict.fromkeys(paths):
            stamp = _stamp(path)
            if stamp is None:
                verdicts[path] = MISSING
            elif path in self._known and self._known[path][0] == stamp:
                verdicts[path] = self._known[path][1]
            else:
                unknown[path] = stamp
        with ExitStack() as stack:
            journal = stack.enter_context(open(self.journal, "a", encoding="utf-8"))
            # A killed run may have left half a line.
            journal.write("\n")
            run = map
            if workers > 1 and len(unknown) > 100:
                run = stack.enter_context(ProcessPoolExecutor(workers, get_context("spawn"))).map
            bar = stack.enter_context(tqdm(total=len(unknown), unit=" pictures", disable=None, leave=False))
            rest = iter(unknown)
            while chunk := list(islice(rest, 1000)):
                for path, problem in zip(chunk, run(check_picture, chunk), strict=True):
                    verdicts[path] = problem
                    self._known[path] = unknown[path], problem
                    # What the system could not read says nothing of the picture.
                    if "[Errno " not in (problem or ""):
                        journal.write(json.dumps([path, unknown[path], problem]) + "\n")
                    bar.update()
                journal.flush()
        return verdicts


def _stamp(path: str) -> list[int] | None:
    try:
        found = os.stat(path)
    except (OSError, ValueError):  # there can be none with a zero byte in its name
        return None
    return [found.st_size, found.st_mtime_ns]


def prepare(kind: str, source: Path, out: Path, workers: int = 1) -> dict[str, Any]:
    """Check a download and write its index.

    Args:
        kind: cc3m, vist, mmdialog or emoji (whose index has the layout of cc3m).
        workers: processes that decode pictures.

    Returns:
        The report: by split, `rows` (read, kept, cut, dropped), `pictures` (good, missing, corrupt; each file once),
        `folders` (of the bad ones, how many where) and `problems` (how often which).

    Raises:
        FileNotFoundError: if `source` is no such download.
        ValueError: if it is also `out`, or a file of it is broken; names the file, line and field.
    """
    source, out = Path(source).resolve(), Path(out).resolve()
    if source == out:
        raise ValueError(f"{out} is the download itself; give another folder for the index")
    layout, splits = find_layout(kind, source)
    out.mkdir(parents=True, exist_ok=True)
    verdicts = Verdicts(out / "checked.jsonl")
    report = {split: _prepare_split(kind, layout, source, split, out, verdicts, workers) for split in splits}
    report = {"kind": kind, "source": str(source), "splits": report}
    write_json(out / "report.json", report)
    return report


def _prepare_split(
    kind: str, layout: Layout, source: Path, split: str, out: Path, verdicts: Verdicts, workers: int
) -> dict[str, Any]:
    named = (picture.path for row in layout.rows(source, split) for picture in row.pictures if picture)
    problems = verdicts.check(named, workers)
    rows: Counter[str] = Counter(read=0, kept=0, cut=0, dropped=0)

    def kept(bad: Any) -> Iterator[Row]:
        for row in layout.rows(source, split):
            good = _good_steps(kind, row, problems)
            fate = "dropped" if not good else "kept" if good == len(row.texts) else "cut"
            rows.update(("read", fate))
            for picture in row.pictures:
                if picture and problems[picture.path]:
                    entry = {"path": picture.path, "problem": problems[picture.path], "in": row.place, "row": fate}
                    bad.write(json.dumps(entry) + "\n")
            if good:
                yield Row(row.place, row.name, row.texts[:good], row.pictures[:good])

    with ExitStack() as stack:
        bad = stack.enter_context(whole_file(out / f"{split}_bad.jsonl"))
        WRITERS[kind](kept(stack.enter_context(open(bad, "w", encoding="utf-8"))), out, split)
    wrong = {path: problem for path, problem in problems.items() if problem}
    missing = sum(problem == MISSING for problem in wrong.values())
    counts = {"good": len(problems) - len(wrong), "missing": missing, "corrupt": len(wrong) - missing}
    return {
        "rows": dict(rows),
        "pictures": counts,
        "folders": dict(Counter(str(Path(path).parent) for path in wrong).most_common()),
        "problems": dict(Counter(problem.split(" (")[0] for problem in wrong.values()).most_common()),
    }


def _good_steps(kind: str, row: Row, problems: dict[str, str | None]) -> int:
    """How many steps of a row are of use: all, none, or those of a talk before its first bad picture (published)."""
    bad = [step for step, picture in enumerate(row.pictures) if picture and problems[picture.path]]
    if not bad:
        return len(row.texts)
    return bad[0] if kind == "mmdialog" and bad[0] > 1 else 0


def _pictures(row: Row) -> list[PictureFile]:
    """The pictures of a row whose every step has one."""
    return [cast(PictureFile, picture) for picture in row.pictures]


def _absolute(picture: PictureFile) -> str:
    return os.path.abspath(picture.path)


def _write_cc3m(rows: Iterable[Row], out: Path, split: str) -> None:
    with whole_file(out / f"cc3m_{split}.tsv") as temporary, open(temporary, "w", encoding="utf-8", newline="") as file:
        file.write("caption\timage_path\n")
        for row in rows:
            path = _absolute(_pictures(row)[0])
            if path.splitlines() != [path]:
                raise ValueError(f"{path!r} has a line break in its name, which no table can hold; rename it")
            file.write(table_row(row.texts[0], path) + "\n")


def _write_vist(rows: Iterable[Row], out: Path, split: str) -> None:
    stories, mapping = {}, {}
    for row in rows:
        stories[row.name] = [
            {"caption": text, "image_id": picture.name, "sequence_index": index}
            for index, (text, picture) in enumerate(zip(row.texts, _pictures(row), strict=True))
        ]
        mapping |= {picture.name: _absolute(picture) for picture in _pictures(row)}
    for name, content in (("image_mapping", mapping), ("cleaned", stories)):
        write_json(out / f"{split}_{name}.json", content)


def _write_mmdialog(rows: Iterable[Row], out: Path, split: str) -> None:
    table = out / split / f"{split}_conversations.txt"
    with whole_file(table) as temporary, open(temporary, "w", encoding="utf-8") as file:
        for row in rows:
            turns = []
            for text, picture in zip(row.texts, row.pictures, strict=True):
                elements = [{"__TEXT__": text}] if text else []
                if picture:
                    elements.append({"__MEDIA__": picture.name, "path": _absolute(picture)})
                turns.append({"turn": elements})
            file.write(json.dumps({"conversation_id": row.name, "conversation": turns}, ensure_ascii=False) + "\n")


WRITERS = {"cc3m": _write_cc3m, "emoji": _write_cc3m, "vist": _write_vist, "mmdialog": _write_mmdialog}


def as_table(report: dict[str, Any]) -> str:
    """A report as a table, and where its bad pictures lie."""
    head = ("split", "rows", "kept", "cut", "dropped", "pictures", "good", "missing", "corrupt")
    lines: list[tuple[str, ...]] = [head]
    places = []
    for split, found in report["splits"].items():
        rows, pictures = found["rows"], found["pictures"]
        numbers = (*rows.values(), sum(pictures.values()), *pictures.values())
        lines.append((split, *(f"{number:,}" for number in numbers)))
        places += [f"{split}: {count:,} bad in {folder}" for folder, count in list(found["folders"].items())[:5]]
        places += [f"{split}: {count:,} × {problem}" for problem, count in found["problems"].items()]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    aligned = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([*aligned, *places])
