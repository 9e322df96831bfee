"""Webdataset shards: each key's caption and picture whatever their order and ending, and errors that name the key."""

import io
import tarfile

import pytest
from PIL import Image

from minigpt5.data.readers import read_cc3m_shards
from minigpt5.data.tolerant import tolerate


def picture(kind="JPEG", width=3):
    buffer = io.BytesIO()
    Image.new("RGB", (width, 4)).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def pack(tmp_path):
    """Writes a shard of these members, and gives the data set's folder."""

    def write(members, name="00000"):
        (tmp_path / "train").mkdir(exist_ok=True)
        with tarfile.open(tmp_path / f"train/{name}.tar", "w") as tar:
            for member, content in members:
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
        return tmp_path

    return write


@pytest.fixture(params=[False, True], ids=["table", "stream"])
def read(request, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def rows(root):
        return list(read_cc3m_shards(root, "train", streaming=request.param))

    return rows


def told(rows):
    return [(row["caption"], row["image"].width) for row in rows]


def test_each_key_has_a_picture_of_its_own_ending(pack, read):
    members = []
    for number, (ending, kind) in enumerate(
        (("jpg", "JPEG"), ("png", "PNG"), ("jpeg", "JPEG"), ("webp", "WEBP"), ("JPG", "JPEG"), ("PNG", "PNG"))
    ):
        members += [(f"a/{number}.{ending}", picture(kind, number + 1)), (f"a/{number}.txt", b"said")]
    assert told(read(pack(members))) == [("said", width) for width in range(1, 7)]


def test_members_of_a_key_need_not_stand_together(pack, read):
    members = [("./1.jpg", picture(width=1)), ("./2.jpg", picture(width=2)), ("./2.txt", b"two"), ("./1.txt", b"one")]
    assert told(read(pack(members))) == [("one", 1), ("two", 2)]


def test_what_is_no_sample_is_passed_over(pack, read):
    members = [("._1.jpg", b"mac"), ("README", b"read"), ("1.jpg", picture()), ("1.txt", b"\xef\xbb\xbfa fox\n")]
    assert told(read(pack(members))) == [("a fox", 3)]


def test_a_caption_may_stand_in_the_sidecar(pack, read):
    assert told(read(pack([("1.jpg", picture()), ("1.json", b'{"caption": "a fox"}')]))) == [("a fox", 3)]


def test_a_caption_of_null_is_none(pack):
    members = [("1.jpg", picture()), ("1.json", b'{"caption": "a fox"}'), ("2.jpg", picture())]
    rows = tolerate(read_cc3m_shards(pack([*members, ("2.json", b'{"caption": null}')]), "train", streaming=True), 0.5)
    assert told(rows) == [("a fox", 3)] and "2.jpg" in rows.count.first[0] and "no caption" in rows.count.first[0]


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ([("7.txt", b"\xff")], r"00000\.tar/7\.txt, byte 0: not UTF-8"),
        ([("7.txt", b"a"), ("7.json", b"{")], r"00000\.tar/7\.json, line 1, column 2: not JSON"),
        ([("7.json", b'{"caption": 3}')], r"00000\.tar/7\.json: caption is 3, expected a string"),
        ([("7.txt", b"a"), ("7.png", picture("PNG"))], r"00000\.tar/7: two pictures, jpg and png"),
    ],
)
def test_errors_name_shard_and_key(pack, read, members, problem):
    good = [("1.jpg", picture()), ("1.txt", b"a")]
    with pytest.raises(ValueError, match=problem):
        read(pack([*good, ("7.jpg", picture()), *members]))


def test_a_key_without_caption_or_picture_is_counted_and_named(pack):
    members = [("1.jpg", picture()), ("1.txt", b"a"), ("2.jpg", picture()), ("3.txt", b"b"), ("3.json", b"{}")]
    rows = tolerate(read_cc3m_shards(pack(members), "train", streaming=True), 0.5)
    assert told(rows) == [("a", 3)]
    assert rows.count.bad == 2
    assert "00000.tar/2.jpg" in rows.count.first[0] and "no caption" in rows.count.first[0]
    assert "00000.tar/3, which holds txt, json: not a picture" in rows.count.first[1]


def test_an_empty_shard_has_no_rows(pack, read):
    pack([], "00000")
    assert told(read(pack([("1.jpg", picture()), ("1.txt", b"a")], "00001"))) == [("a", 3)]
    pack([], "00001")
    with pytest.raises(ValueError, match=r"train: there is nothing in its shards"):
        read(pack([], "00000"))


@pytest.mark.parametrize("place", [0, 1024 + 2, 1024 + 130])
def test_a_broken_header_is_no_end(pack, read, place):
    root = pack([("1.jpg", b"x" * 100), ("1.txt", b"a"), ("2.txt", b"b")])
    content = bytearray((root / "train/00000.tar").read_bytes())
    content[place] ^= 0xFF
    (root / "train/00000.tar").write_bytes(content)
    with pytest.raises(ValueError, match=r"00000\.tar: not a whole tar"):
        read(root)


def test_shards_glued_together_are_no_shard(pack, read):
    root = pack([("1.jpg", picture()), ("1.txt", b"a")])
    content = (root / "train/00000.tar").read_bytes()
    (root / "train/00000.tar").write_bytes(content + content)
    with pytest.raises(ValueError, match=r"00000\.tar: not a whole tar \(broken behind member 2"):
        read(root)


def test_a_replaced_shard_is_read_anew(pack, tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for caption in (b"before", b"afterwards"):
        (row,) = read_cc3m_shards(pack([("1.jpg", picture()), ("1.txt", caption)]), "train")
        assert row["caption"] == caption.decode()
