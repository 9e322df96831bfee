"""Readers on tiny files in the layouts of the real data sets."""

import json

import pytest
from PIL import Image

from minigpt5.data.readers import read_cc3m, read_mmdialog, read_vist


def paint(path, size=(5, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)


def cc3m(root, *lines):
    table = "\n".join(("caption\timage_path", *lines))
    (root / "cc3m_val.tsv").write_text(f"{table}\n", encoding="utf-8")
    return root


def vist(root, steps, mapping):
    (root / "val_cleaned.json").write_text(json.dumps({"45530": steps}))
    (root / "val_image_mapping.json").write_text(json.dumps(mapping))
    return root


def step(caption, image_id, index):
    return {"caption": caption, "image_id": image_id, "sequence_index": index}


def mmdialog(root, *lines):
    (root / "test").mkdir(exist_ok=True)
    (root / "test" / "test_conversations.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return root


def talk(*turns):
    return json.dumps({"conversation_id": 7, "conversation": [{"turn": turn} for turn in turns]})


def test_cc3m_gives_captions_and_pictures(tmp_path):
    paint(tmp_path / "val/000000001.jpg")
    rows = read_cc3m(cc3m(tmp_path, "a café by the sea\tval/000000001.jpg"), "val")
    assert rows["caption"][0] == "a café by the sea"
    assert rows[0]["image"].size == (5, 4)


def test_cc3m_reads_quoted_captions_as_pandas_writes_them(tmp_path):
    rows = read_cc3m(cc3m(tmp_path, '"the ""best"" cat"\tval/1.jpg'), "val")
    assert rows["caption"][0] == 'the "best" cat'


def test_cc3m_errors_name_file_and_line(tmp_path):
    with pytest.raises(ValueError, match=r"cc3m_val\.tsv, line 3: 1 columns"):
        read_cc3m(cc3m(tmp_path, "fine\tval/1.jpg", "no path"), "val")
    (tmp_path / "cc3m_val.tsv").write_text("text\turl\n")
    with pytest.raises(ValueError, match=r"cc3m_val\.tsv, line 1: columns are \['text', 'url'\]"):
        read_cc3m(tmp_path, "val")


@pytest.mark.parametrize("reader", [read_cc3m, read_vist, read_mmdialog])
def test_a_missing_table_is_named(tmp_path, reader):
    with pytest.raises(FileNotFoundError, match=r"val.* is missing"):
        reader(tmp_path, "val")


def test_vist_puts_steps_in_order(tmp_path):
    for name, width in (("a", 3), ("b", 6)):
        paint(tmp_path / f"val_images/{name}.png", (width, 4))
    steps = [step("then this .", "22", 1), step("first that .", "11", 0)]
    rows = read_vist(vist(tmp_path, steps, {"11": "val_images/a.png", "22": "val_images/b.png"}), "val")
    assert rows[0]["texts"] == ["first that .", "then this ."]
    assert [image.width for image in rows[0]["images"]] == [3, 6]


def test_vist_errors_name_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"val_image_mapping\.json has no path for image_id 22 of story 45530"):
        read_vist(vist(tmp_path, [step("then", "22", 0)], {}), "val")
    with pytest.raises(ValueError, match=r"val_cleaned\.json, story 45530: a step has no caption"):
        read_vist(vist(tmp_path, [{"image_id": "22", "sequence_index": 0}], {"22": "x.png"}), "val")
    (tmp_path / "val_cleaned.json").write_text('{\n"1": [,]}')
    with pytest.raises(ValueError, match=r"val_cleaned\.json, line 2: not JSON"):
        read_vist(tmp_path, "val")


def test_mmdialog_gives_turns_with_and_without_pictures(tmp_path):
    paint(tmp_path / "test/9f3.jpg")
    line = talk([{"__TEXT__": "look"}, {"__MEDIA__": "9f3"}, {"__TEXT__": "at this"}], [{"__TEXT__": "nice"}])
    row = read_mmdialog(mmdialog(tmp_path, line), "test")[0]
    assert row["texts"] == ["look at this", "nice"]
    assert row["images"][0].size == (5, 4) and row["images"][1] is None


@pytest.mark.parametrize("broken", ["{", "[]", '{"conversation": [{}]}', '{"conversation": [{"turn": [3]}]}'])
def test_mmdialog_errors_name_file_and_line(tmp_path, broken):
    with pytest.raises(ValueError, match=r"test_conversations\.txt, line 2: not a conversation"):
        read_mmdialog(mmdialog(tmp_path, talk([{"__TEXT__": "hello"}]), broken), "test")


def test_mmdialog_names_a_missing_picture(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"line 1: no picture 9f3"):
        read_mmdialog(mmdialog(tmp_path, talk([{"__MEDIA__": "9f3"}])), "test")


def test_a_talk_can_end_before_a_missing_picture(tmp_path):
    lines = talk([{"__TEXT__": "hello"}], [{"__MEDIA__": "9f3"}], [{"__TEXT__": "bye"}]), talk([{"__TEXT__": "alone"}])
    rows = read_mmdialog(mmdialog(tmp_path, *lines), "test", cut_at_missing=True)
    assert rows["texts"][:] == [["hello"], ["alone"]]


def test_pictures_are_not_opened_before_they_are_read(tmp_path):
    rows = read_cc3m(cc3m(tmp_path, "gone\tval/missing.jpg"), "val")
    with pytest.raises(FileNotFoundError):
        rows[0]
