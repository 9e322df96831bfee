"""Any bytes in any file of a data set are rows, or an error of our own."""

import io
import json
import tarfile
from itertools import count

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minigpt5.data.features import FeatureCache, content_key
from minigpt5.data.generation import GeneratedFolder
from minigpt5.data.layouts import cc3m_rows, chat_rows, llava_rows, mmdialog_rows, vist_raw_rows, vist_rows
from minigpt5.data.prepare import Verdicts
from minigpt5.data.readers import open_dataset
from minigpt5.data.shards import find_shards, shard_rows
from minigpt5.data.tables import read_table, table_row
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.utils.json_files import read_json


def shard():
    picture, packed = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (3, 3)).save(picture, "png")
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for name, content in (("1.png", picture.getvalue()), ("1.txt", b"a fox"), ("1.json", b'{"key": "1"}')):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


SENTENCE = {"story_id": "5", "photo_flickr_id": "1", "worker_arranged_photo_order": 0, "text": "a fox"}
TURNS = [{"turn": [{"__TEXT__": "hello"}, {"__MEDIA__": "9f3"}]}, {"turn": [{"__TEXT__": "hi", "path": "x"}]}]
SAID = [
    {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "who?"}]},
    {"role": "assistant", "content": "a fox"},
]
TALK = [{"from": "human", "value": "<image>\nwho?"}, {"from": "gpt", "value": "a fox"}]
STEPS = {"5": [{"caption": "a fox", "image_id": "1", "sequence_index": 0}]}
# Of each layout its files as they should be.
GOOD = {
    "cc3m": {"cc3m_val.tsv": b'caption\timage_path\n"a ""fox"""\t1.jpg\na cat\t2.jpg\n'},
    "vist": {"val_cleaned.json": json.dumps(STEPS).encode(), "val_image_mapping.json": b'{"1": "a.png"}'},
    "vist-raw": {"val.story-in-sequence.json": json.dumps({"annotations": [[SENTENCE]]}).encode()},
    "mmdialog": {"val/val_conversations.txt": json.dumps({"conversation_id": 1, "conversation": TURNS}).encode()},
    "chat": {"val.jsonl": json.dumps({"messages": SAID}).encode()},
    "chat-llava": {"val.json": json.dumps([{"id": "1", "image": "a.png", "conversations": TALK}]).encode()},
    "cc3m-shards": {"val/0.tar": shard()},
}
ROWS = {
    "cc3m": cc3m_rows,
    "vist": vist_rows,
    "vist-raw": vist_raw_rows,
    "mmdialog": mmdialog_rows,
    "chat": chat_rows,
    "chat-llava": llava_rows,
    "cc3m-shards": lambda root, split: shard_rows(find_shards(root / split)),
}
CHANGES = st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 255)), max_size=8)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def folder(tmp_path):
    """Writes files to a new folder each time."""
    numbers = count()

    def write(files):
        root = tmp_path / str(next(numbers))
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        return root

    return write


def changed(content, changes):
    content = bytearray(content)
    for place, value in changes:
        content[place % len(content)] = value
    return bytes(content)


@given(
    layout=st.sampled_from(sorted(GOOD)),
    which=st.integers(0, 1),
    content=st.binary(max_size=600),
    keep=st.integers(0, 600),
)
def test_any_bytes_in_a_table(folder, clear_errors, layout, which, content, keep):
    files = dict(GOOD[layout])
    name = sorted(files)[which % len(files)]
    root = folder(files | {name: files[name][:keep] + content})
    with clear_errors(ValueError):
        list(ROWS[layout](root, "val"))


@given(layout=st.sampled_from(sorted(GOOD)), which=st.integers(0, 1), changes=CHANGES)
def test_changed_bytes_in_a_table(folder, clear_errors, layout, which, changes):
    files = dict(GOOD[layout])
    name = sorted(files)[which % len(files)]
    root = folder(files | {name: changed(files[name], changes)})
    with clear_errors(ValueError):
        list(ROWS[layout](root, "val"))
        if layout != "cc3m-shards":
            len(open_dataset(layout, root, "val"))


@given(layout=st.sampled_from(("vist", "vist-raw", "mmdialog", "chat", "chat-llava")), value=JSON, data=st.data())
def test_json_with_other_values(folder, clear_errors, layout, value, data):
    files = dict(GOOD[layout])
    name = data.draw(st.sampled_from(sorted(files)))
    content = json.loads(files[name])
    # Walk down to any value and put another in its place.
    at = {"root": content}
    whole, key = at, "root"
    while isinstance(at[key], (dict, list)) and at[key] and data.draw(st.integers(0, 3)):
        at = at[key]
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else list(range(len(at)))))
    at[key] = value
    root = folder(files | {name: json.dumps(whole["root"]).encode()})
    with clear_errors(ValueError):
        list(ROWS[layout](root, "val"))
        len(open_dataset(layout, root, "val"))


@given(captions=st.lists(st.text(max_size=30), max_size=8))
def test_what_is_written_to_a_table_is_read_from_it(folder, captions):
    captions = [caption.encode(errors="ignore").decode() for caption in captions]
    table = "".join(table_row(caption, "1.jpg") + "\n" for caption in ["caption", *captions])
    root = folder({"a.tsv": table.encode()})
    rows = [fields for _, fields in read_table(root / "a.tsv", ("caption", "1.jpg"))]
    assert rows == [[" ".join(caption.splitlines()), "1.jpg"] for caption in captions]


@given(content=st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_in_files_of_a_run(folder, clear_errors, content):
    names = (
        "settings.json",
        "asked.json",
        "replies/1.json",
        "replies/2.refused.json",
        "checked.jsonl",
        "text-m/a.safetensors",
    )
    root = folder(dict.fromkeys(names, content))
    replies = ReplyFolder(root)
    for read in (
        lambda: read_json(root / "settings.json"),
        lambda: replies.settings,
        lambda: replies.read("1"),
        lambda: replies.refusal("2"),
        lambda: replies.note([]),
        lambda: GeneratedFolder(str(root)).claim({"seed": 0}),
    ):
        with clear_errors(ValueError):
            read()
    # Notes that help are passed over where they are broken.
    assert Verdicts(root / "checked.jsonl").check(["gone.png"]) == {"gone.png": "no such file"}
    assert FeatureCache(root, "text", "m").fetch(["k"], lambda _: torch.ones(1, 2)).tolist() == [[1, 1]]


@given(changes=CHANGES.filter(bool))
def test_a_changed_cache_gives_what_was_stored_or_computes_it(folder, changes):
    root, keys = folder({}), [content_key(text) for text in "ab"]
    entries = torch.arange(6.0).view(2, 3)
    FeatureCache(root, "text", "m").fetch(keys, lambda missing: entries[missing])
    for path in (root / "text-m").iterdir():
        path.write_bytes(changed(path.read_bytes(), changes))
    assert torch.equal(FeatureCache(root, "text", "m").fetch(keys, lambda missing: entries[missing]), entries)
