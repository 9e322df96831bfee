"""The file layouts of CC3M, VIST, MMDialog, LLaVA-Instruct and one's own chats, row by row as plain texts and paths.

Nothing is said here about whether a picture exists. Every error names the file, the line or entry, and the field.

Each function takes `part = (index, count)` and yields the rows index, index + count, …: a part of a streamed data set.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from minigpt5.data.tables import read_table
from minigpt5.utils.json_files import decode_text, field, read_json, read_json_lines, said, shortened

Part = tuple[int, int]
WHOLE: Part = (0, 1)
LLAVA_MARK = "<image>"
PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")


class PictureFile(NamedTuple):
    """A picture by the name that its data set gives it, and where it should lie."""

    name: str
    path: str


@dataclass(frozen=True)
class Row:
    """A caption, a story or a talk.

    Args:
        place: where it was read, for errors and reports.
        name: the story's or talk's id; empty where the layout has none.
        texts: one a step.
        pictures: one a step, `None` where a step shows none.
    """

    place: str
    name: str
    texts: list[str]
    pictures: Sequence[PictureFile | None]


def existing(path: Path) -> Path:
    """The path itself.

    Raises:
        FileNotFoundError: if there is nothing.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing; is {path.parent} a folder in this data set's layout?")
    return path


def _identifier(entry: Any, name: str, place: str) -> str:
    """An id, which JSON may hold as a string or as a number."""
    number = isinstance(entry, dict) and isinstance(entry.get(name), int)
    return str(field(entry, name, int if number else str, place))


def find_picture(folder: str | Path, name: str) -> str:
    """The picture file of that name, whatever its ending; where there is none, the path it would have as a JPEG."""
    for ending in PICTURE_ENDINGS:
        for path in (f"{folder}/{name}{ending}", f"{folder}/{name}{ending.upper()}"):
            if os.path.exists(path):
                return path
    return f"{folder}/{name}.jpg"


def cc3m_rows(root: str | Path, split: str, part: Part = WHOLE) -> Iterator[Row]:
    """`cc3m_{split}.tsv`, a table of captions."""
    return caption_rows(existing(Path(root) / f"cc3m_{split}.tsv"), part)


def caption_rows(table: Path, part: Part = WHOLE) -> Iterator[Row]:
    """A table whose header is caption, image_path; quotes as in CSV, paths relative to it."""
    rows = read_table(table, ("caption", "image_path"))
    for line, (caption, path) in islice(rows, part[0], None, part[1]):
        place = f"{table}, line {line}"
        if not path.strip():
            raise ValueError(f"{place}: image_path is empty")
        yield Row(place, "", [caption], [PictureFile(path, os.path.join(table.parent, path))])


def caption_file_rows(root: str | Path, split: str, part: Part = WHOLE) -> Iterator[Row]:
    """What img2dataset writes as `files`: under `{split}/` a caption `NAME.txt` beside each picture `NAME.jpg`."""
    folder = existing(Path(root) / split)
    captions = sorted(path for path in walk_files(folder) if path.suffix == ".txt")
    for caption in islice(captions, part[0], None, part[1]):
        try:
            str(caption).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{str(caption)!a}: the name of this file is not UTF-8") from None
        text = decode_text(caption.read_bytes(), str(caption)).strip()
        picture = find_picture(caption.parent, caption.stem)
        yield Row(str(caption), "", [text], [PictureFile(str(Path(picture).relative_to(root)), picture)])


def walk_files(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[Path]:
    """All files in a folder and in those within, links among them, that are not hidden.

    Args:
        above: device and number of the folders that lead there; a link back to one of them is not followed.
    """
    status = os.stat(folder)
    here = status.st_dev, status.st_ino
    if here in above:
        return
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from walk_files(path, above | {here})
        else:
            yield path


def vist_rows(root: str | Path, split: str, part: Part = WHOLE) -> Iterator[Row]:
    """`{split}_cleaned.json`, stories by id, and `{split}_image_mapping.json`, the pictures' paths by id."""
    root = Path(root)
    stories_file, mapping_file = root / f"{split}_cleaned.json", root / f"{split}_image_mapping.json"
    stories, mapping = read_json(existing(stories_file)), read_json(existing(mapping_file))
    for story_id in islice(stories, part[0], None, part[1]):
        place = f"{stories_file}, story {story_id}"
        try:
            steps = _steps(field(stories, story_id, list, str(stories_file)), place)
        except ValueError as error:
            raise ValueError(str(error).replace(str(stories_file), _line_of(story_id, stories_file), 1)) from None
        pictures = []
        for image_id, _ in steps:
            if not isinstance(mapping.get(image_id), str):
                raise ValueError(f"{mapping_file} has no path for image_id {image_id} of story {story_id}")
            pictures.append(PictureFile(image_id, str(root / mapping[image_id])))
        yield Row(place, story_id, [caption for _, caption in steps], pictures)


def _line_of(key: str, file: Path) -> str:
    """File and line of a key: Python's JSON forgets lines, and one is worth a search where it is to be mended."""
    text = file.read_text(encoding="utf-8-sig")
    found = next(
        (at for escaped in (False, True) if (at := text.find(json.dumps(key, ensure_ascii=escaped))) >= 0), None
    )
    return str(file) if found is None else f"{file}, line {text.count(chr(10), 0, found) + 1}"


def _steps(steps: list, place: str) -> list[tuple[str, str]]:
    """Picture's id and caption of each step, in the order that they tell."""
    numbered = []
    for number, step in enumerate(steps):
        where = f"{place}, step {number}"
        order = field(step, "sequence_index", int, where)
        numbered.append((order, _identifier(step, "image_id", where), field(step, "caption", str, where)))
    return [(image_id, caption) for _, image_id, caption in sorted(numbered, key=lambda step: step[0])]


def _order(entry: Any, name: str, place: str) -> int:
    """A whole number, which VIST's JSON may hold as a string."""
    number = _identifier(entry, name, place)
    if not re.fullmatch(r"-?[0-9]{1,9}", number):
        raise ValueError(f"{place}: {name} is {shortened(entry[name])}, expected a whole number")
    return int(number)


def vist_raw_rows(root: str | Path, split: str, part: Part = WHOLE) -> Iterator[Row]:
    """VIST as it is distributed: `[sis/]{split}.story-in-sequence.json`, and `images/[{split}/]`, files by photo id.

    Its annotations are lists of one sentence each; those of a story need not stand together.
    """
    root = Path(root)
    table = root / "sis" / f"{split}.story-in-sequence.json"
    table = existing(table if table.exists() else root / table.name)
    folder = root / "images" / split
    folder = folder if folder.exists() else folder.parent
    stories: dict[str, list[tuple[int, str, str]]] = {}
    for number, annotation in enumerate(field(read_json(table), "annotations", list, str(table))):
        place = f"{table}, annotations[{number}]"
        if not isinstance(annotation, list) or len(annotation) != 1:
            raise ValueError(f"{place}: expected a list of one sentence, got {shortened(annotation)}")
        (sentence,) = annotation
        order = _order(sentence, "worker_arranged_photo_order", place)
        step = order, _identifier(sentence, "photo_flickr_id", place), field(sentence, "text", str, place)
        stories.setdefault(_identifier(sentence, "story_id", place), []).append(step)
    for story_id in islice(stories, part[0], None, part[1]):
        steps = sorted(stories[story_id], key=lambda step: step[0])
        pictures = [PictureFile(photo, find_picture(folder, photo)) for _, photo, _ in steps]
        yield Row(f"{table}, story {story_id}", story_id, [text for *_, text in steps], pictures)


def mmdialog_rows(root: str | Path, split: str, part: Part = WHOLE) -> Iterator[Row]:
    """`{split}/{split}_conversations.txt`, one JSON object a line; pictures lie beside it, by their media id.

    A media element may say its own `path`, relative to the file, as `prepare_data.py` writes it. Of several pictures in
    a turn the first counts, as in the published code.
    """
    table = existing(Path(root) / split / f"{split}_conversations.txt")
    for line_place, content in read_json_lines(table, part):
        texts, pictures = [], []
        for number, turn in enumerate(field(content, "conversation", list, line_place)):
            place = f"{line_place}, conversation[{number}]"
            words, media = [], []
            for index, element in enumerate(field(turn, "turn", list, place)):
                where = f"{place}.turn[{index}]"
                if not isinstance(element, dict):
                    raise ValueError(f"{where}: expected an object, got {shortened(element)}")
                if "__TEXT__" in element:
                    words.append(field(element, "__TEXT__", str, where))
                if "__MEDIA__" in element:
                    name = _identifier(element, "__MEDIA__", where)
                    media.append(
                        PictureFile(name, str(table.parent / field(element, "path", str, where)))
                        if "path" in element
                        else PictureFile(name, find_picture(table.parent, name))
                    )
            texts.append(" ".join(words))
            pictures.append(media[0] if media else None)
        name = _identifier(content, "conversation_id", line_place) if "conversation_id" in content else ""
        yield Row(line_place, name, texts, pictures)


def chat_rows(root: str | Path, split: str, part: Part = WHOLE) -> Iterator[list[dict[str, Any]]]:
    """`{split}.jsonl`: a line `{"messages": […]}` with the messages of the processor, picture paths relative to it.

    A system message may come first; then user and assistant speak, and the last message is the assistant's.
    """
    return (rows for _, _, rows in chat_lines(existing(Path(root) / f"{split}.jsonl"), part))


def chat_lines(table: Path, part: Part = WHOLE) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """As `chat_rows`, from any such file; with the place of each line, and all that it says beside its messages."""
    for place, content in read_json_lines(table, part):
        messages = field(content, "messages", list, place)
        rows = [_message(message, f"{place}, messages[{i}]", table.parent) for i, message in enumerate(messages)]
        for number, row in enumerate(rows):
            if row["role"] not in ("user", "assistant") and (row["role"], number) != ("system", 0):
                raise ValueError(
                    f"{place}, messages[{number}]: role is {shortened(row['role'])}, "
                    "expected user, assistant or, in the first, system"
                )
            if row["role"] == "system" and any(piece["type"] == "image" for piece in row["content"]):
                raise ValueError(f"{place}, messages[{number}]: a system message shows no picture")
        if [row["role"] for row in rows[-2:]] != ["user", "assistant"]:
            raise ValueError(f"{place}: messages end with what the assistant is to learn, after a question")
        yield place, content, rows


def preference_rows(root: str | Path, split: str, part: Part = WHOLE) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """`{split}.jsonl`: a line `{"prompt": […], "chosen": […], "rejected": […]}`, each messages as of `chat_rows`.

    A prompt ends with what the user says; what is chosen and what is rejected is one message of the assistant's each.
    """
    table = existing(Path(root) / f"{split}.jsonl")
    for place, content in read_json_lines(table, part):
        row = {
            name: [
                _message(message, f"{place}, {name}[{i}]", table.parent)
                for i, message in enumerate(field(content, name, list, place))
            ]
            for name in ("prompt", "chosen", "rejected")
        }
        roles = {name: [message["role"] for message in messages] for name, messages in row.items()}
        if roles["chosen"] != ["assistant"] or roles["rejected"] != ["assistant"] or roles["prompt"][-1:] != ["user"]:
            raise ValueError(
                f"{place}: expected a prompt that ends with the user's, and one reply of the assistant's each"
            )
        yield row


def _message(message: Any, place: str, folder: Path) -> dict[str, Any]:
    role = field(message, "role", str, place)
    if isinstance(message.get("content"), str):
        return {"role": role, "content": [_piece("text", message["content"])]}
    content = []
    for number, piece in enumerate(field(message, "content", list, place)):
        where = f"{place}.content[{number}]"
        kind = field(piece, "type", str, where)
        if kind not in ("text", "image"):
            raise ValueError(f"{where}: type is {shortened(kind)}, expected text or image")
        value = field(piece, kind, str, where)
        content.append(_piece(kind, str(folder / value) if kind == "image" else value))
    return {"role": role, "content": content}


def llava_rows(root: str | Path, split: str, part: Part = WHOLE) -> Iterator[list[dict[str, Any]]]:
    """`{split}.json` as LLaVA-Instruct comes (arXiv 2304.08485), picture paths relative to it; see `llava_chats`."""
    table = existing(Path(root) / f"{split}.json")
    return (rows for _, _, rows in llava_chats(table, table.parent, part))


def llava_chats(
    table: Path, images: Path, part: Part = WHOLE
) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """A chat for each reply of LLaVA-Instruct's conversations, which begins with all that was said before it.

    A conversation is `{"image": PATH, "conversations": [{"from": "human", "value": …}, {"from": "gpt", …}, …]}`. Its
    picture stands where a question has `<image>`; without a picture it is of words alone. As in the published code,
    what "gpt" says before any question is left out, and so is a question without a reply.

    Args:
        images: the folder that picture paths are relative to.

    Yields:
        Place, conversation, and the messages as `chat_rows` gives them.
    """
    for number, content in islice(enumerate(read_json(table, list)), part[0], None, part[1]):
        place = f"{table}, [{number}]"
        turns = field(content, "conversations", list, place)
        picture = None if content.get("image") is None else str(images / said(content, "image", place))
        marks, messages = 0, []
        for index, turn in enumerate(turns):
            where, role = f"{place}.conversations[{index}]", ("human", "gpt")[len(messages) % 2]
            said_by = field(turn, "from", str, where)
            if index == 0 and said_by == "gpt":
                continue
            if said_by != role:
                raise ValueError(f"{where}: from is {shortened(said_by)}, expected {role}, as the two take turns")
            value = field(turn, "value", str, where)
            if role == "human":
                marks += value.count(LLAVA_MARK)
                messages.append({"role": "user", "content": _marked(value, picture)})
            else:
                messages.append({"role": "assistant", "content": [_piece("text", value)]})
        if marks != (picture is not None) or len(messages) < 2:
            told = f"{marks} {LLAVA_MARK} in {len(turns)} turns and {'a' if picture else 'no'} picture"
            raise ValueError(f"{place}: {told}; expected one for the picture, and a question with a reply")
        for end in range(2, len(messages) + 1, 2):
            yield place, content, messages[:end]


def _marked(text: str, picture: str | None) -> list[dict[str, Any]]:
    """A question with its picture where the mark stands."""
    before, mark, after = text.partition(LLAVA_MARK)
    pieces = [
        _piece("text", before.strip()),
        *([_piece("image", picture)] if mark else []),
        _piece("text", after.strip()),
    ]
    return [piece for piece in pieces if piece["text"] != ""]


def _piece(kind: str, value: str | None) -> dict[str, Any]:
    return {"type": kind, "text": None, "image": None} | {kind: value}
