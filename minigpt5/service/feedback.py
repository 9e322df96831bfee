"""What people think of replies, in an SQLite file, with all that repeats each reply.

A row is on the disk before `put` returns, so what was accepted survives a crash. Many may write the same file at once.

    CREATE TABLE pictures (digest TEXT PRIMARY KEY, png BLOB NOT NULL)
    CREATE TABLE feedback (id TEXT PRIMARY KEY, time TEXT, model TEXT, messages TEXT, settings TEXT, seed INTEGER,
                           reply TEXT, rating TEXT, correction TEXT)

Messages, settings, replies and corrections are JSON, in which a picture is `{"type": "image", "image": digest}`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from PIL import Image

from minigpt5.chat import assistant_turn
from minigpt5.output import Segment
from minigpt5.readers.prompts import Message
from minigpt5.utils.checks import one_of
from minigpt5.utils.images import to_rgb

RATINGS = ("up", "down")
# "MG5F": how SQLite's header tells this kind of file from others.
APPLICATION_ID, VERSION = 0x4D473546, 1
# Seconds that a writer waits for others.
PATIENCE = 60
_DIGEST = re.compile(r'"image": "([0-9a-f]{64})"')
_TABLES = (
    "CREATE TABLE pictures (digest TEXT PRIMARY KEY, png BLOB NOT NULL) WITHOUT ROWID",
    "CREATE TABLE feedback (id TEXT PRIMARY KEY, time TEXT NOT NULL, model TEXT NOT NULL, messages TEXT NOT NULL, "
    "settings TEXT NOT NULL, seed INTEGER NOT NULL, reply TEXT NOT NULL, rating TEXT NOT NULL, correction TEXT)",
)


@dataclass(frozen=True)
class Feedback:
    """What somebody thinks of a reply.

    Args:
        id: of the reply.
        model: as `minigpt5.loading.identity` gives it.
        messages: what was read, with its pictures.
        settings: of `Engine.submit`, but the seed.
        reply: its segments.
        rating: "up" or "down".
        correction: the segments that the reply should have had.
        time: of the rating, ISO 8601, UTC.
    """

    id: str
    model: Mapping[str, Any]
    messages: Sequence[Message]
    settings: Mapping[str, Any]
    seed: int
    reply: Sequence[Segment]
    rating: str
    correction: Sequence[Segment] | None = None
    time: str = ""


class FeedbackStore:
    """A file of feedback, made with its folder by the first row; iterate over it for its rows, oldest first.

    Args:
        path: of the file.

    Raises:
        ValueError: if it is another kind of file; while iterating, if a row is broken.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = Path(path)
        if self.path.exists():
            with self._open():
                pass

    def put(self, feedback: Feedback) -> None:
        """Keep a row; it takes the place of an earlier one of the same reply.

        Raises:
            ValueError: for a rating that is none.
            OSError, sqlite3.Error: if it cannot be written; then nothing of it is.
        """
        one_of("rating", feedback.rating, RATINGS)
        pictures: dict[str, bytes] = {}
        correction = None if feedback.correction is None else stored_parts(feedback.correction, pictures)
        messages = stored_messages(feedback.messages, pictures)
        row = (
            feedback.id,
            datetime.now(UTC).isoformat(timespec="milliseconds"),
            json.dumps(feedback.model, ensure_ascii=False),
            json.dumps(messages, ensure_ascii=False),
            json.dumps(feedback.settings, ensure_ascii=False),
            feedback.seed,
            json.dumps(stored_parts(feedback.reply, pictures), ensure_ascii=False),
            feedback.rating,
            None if correction is None else json.dumps(correction, ensure_ascii=False),
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as connection, _transaction(connection):
            _forget(connection, feedback.id)
            connection.executemany("INSERT OR IGNORE INTO pictures VALUES (?, ?)", pictures.items())
            connection.execute("INSERT INTO feedback VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)

    def remove(self, id: str) -> None:
        """Forget what was thought of a reply, with its pictures that no other row has."""
        with self._open() as connection, _transaction(connection):
            _forget(connection, id)

    def __iter__(self) -> Iterator[Feedback]:
        if not self.path.exists():
            return
        columns = "id, model, messages, settings, seed, reply, rating, correction, time"
        with self._open() as connection:
            for row in connection.execute(f"SELECT {columns} FROM feedback ORDER BY time, rowid").fetchall():
                try:
                    feedback = _read(row, connection)
                except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
                    raise ValueError(f"{self.path}: the row {row[0]} is broken ({error!r})") from error
                yield feedback

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self.path, timeout=PATIENCE, isolation_level=None)) as connection:
            try:
                connection.execute("PRAGMA synchronous = FULL")
                # What is forgotten is overwritten.
                connection.execute("PRAGMA secure_delete = ON")
                with _transaction(connection):
                    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                        connection.execute(f"PRAGMA user_version = {VERSION}")
                        for table in _TABLES:
                            connection.execute(table)
                told = [
                    connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
                ]
            except sqlite3.DatabaseError as error:
                if "not a database" not in str(error):
                    raise
                told = []
            if told != [APPLICATION_ID, VERSION]:
                raise ValueError(f"{self.path} is no file of feedback; name a new one")
            yield connection


def _read(row: Sequence[Any], connection: sqlite3.Connection) -> Feedback:
    id, model, messages, settings, seed, reply, rating, correction, time = row

    def opened(value: dict[str, Any]) -> dict[str, Any]:
        if value.get("type") != "image":
            return value
        found = connection.execute("SELECT png FROM pictures WHERE digest = ?", (value["image"],))
        return {"type": "image", "image": to_rgb(Image.open(io.BytesIO(found.fetchone()[0])))}

    def segments(text: str | None) -> list[Segment] | None:
        parts = None if text is None else json.loads(text, object_hook=opened)
        return parts and [part.get("text", part.get("image")) for part in parts]

    read, told = json.loads(messages, object_hook=opened), segments(reply) or []
    return Feedback(id, json.loads(model), read, json.loads(settings), seed, told, rating, segments(correction), time)


def _forget(connection: sqlite3.Connection, id: str) -> None:
    columns = "messages, reply, coalesce(correction, '')"
    rows = connection.execute(f"SELECT {columns} FROM feedback WHERE id = ?", (id,)).fetchall()
    connection.execute("DELETE FROM feedback WHERE id = ?", (id,))
    for digest in {found for row in rows for text in row for found in _DIGEST.findall(text)}:
        others = " OR ".join(f"instr({column}, :digest)" for column in ("messages", "reply", "correction"))
        connection.execute(
            f"DELETE FROM pictures WHERE digest = :digest AND NOT EXISTS (SELECT 1 FROM feedback WHERE {others})",
            {"digest": digest},
        )


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All of it or nothing; others who write wait."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def stored_messages(messages: Sequence[Message], pictures: dict[str, bytes]) -> list[dict[str, Any]]:
    """Messages whose pictures are PNG files in `pictures`, by their digests."""
    return [
        {"role": message["role"], "content": [_stored(part, pictures) for part in message["content"]]}
        for message in messages
    ]


def stored_parts(segments: Sequence[Segment], pictures: dict[str, bytes]) -> list[dict[str, Any]]:
    """Segments as a message's parts whose pictures are PNG files in `pictures`, by their digests."""
    return stored_messages([assistant_turn(segments)], pictures)[0]["content"]


def _stored(part: Mapping[str, Any], pictures: dict[str, bytes]) -> dict[str, Any]:
    if part["type"] != "image":
        return dict(part)
    buffer = io.BytesIO()
    to_rgb(part["image"]).save(buffer, "PNG")
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    pictures[digest] = buffer.getvalue()
    return {"type": "image", "image": digest}
