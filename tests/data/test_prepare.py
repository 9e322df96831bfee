"""Downloads with good, missing and broken pictures, indexed."""

import json
import os

import pytest
from PIL import Image

from minigpt5.data import prepare as module
from minigpt5.data.prepare import as_table, prepare
from minigpt5.data.readers import open_dataset
from minigpt5.readers.prompts import as_list
from minigpt5.storyworld.export import export_cc3m, export_mmdialog, export_vist
from minigpt5.utils import images

EXPORTS = {"cc3m": export_cc3m, "vist": export_vist, "mmdialog": export_mmdialog}


def spoil(paths):
    """The first is deleted, the second cut off, the third is a web page."""
    gone, short, page = paths
    gone.unlink()
    short.write_bytes(short.read_bytes()[:-40])
    page.write_text("<html>404 not found</html>")


def bad_lines(out, split="train"):
    return [json.loads(line) for line in (out / f"{split}_bad.jsonl").read_text().splitlines()]


def pixels(row):
    """A row with the bytes of its pictures in their places."""
    images = as_list(row.get("image", row.get("images")))
    return row.get("caption", row.get("texts")), [image and image.tobytes() for image in images]


@pytest.fixture
def source(tmp_path):
    return tmp_path / "download"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "index"


def test_cc3m_drops_rows_without_a_good_picture(source, out):
    export_cc3m(source, "train", 12, 16)
    export_cc3m(source, "validation", 3, 16)
    spoil([source / f"train/{number:09d}.png" for number in (2, 5, 7)])
    whole = open_dataset("cc3m", source, "train")
    report = prepare("cc3m", source, out)
    train = report["splits"]["train"]
    assert train["rows"] == {"read": 12, "kept": 9, "cut": 0, "dropped": 3}
    assert train["pictures"] == {"good": 9, "missing": 1, "corrupt": 2}
    assert train["folders"] == {str(source / "train"): 3}
    assert train["problems"] == {
        "no such file": 1,
        "broken picture": 1,
        "not a picture that can be read": 1,
    }
    assert report["splits"]["validation"]["pictures"] == {"good": 3, "missing": 0, "corrupt": 0}
    assert json.loads((out / "report.json").read_text()) == report

    rows = open_dataset("cc3m", out, "train")
    kept = [index for index in range(12) if index not in (2, 5, 7)]
    assert rows["caption"][:] == [whole["caption"][index] for index in kept]
    assert [row["image"].tobytes() for row in rows] == [whole[index]["image"].tobytes() for index in kept]
    assert [(line["in"], line["row"]) for line in bad_lines(out)] == [
        (f"{source / 'cc3m_train.tsv'}, line {number + 2}", "dropped") for number in (2, 5, 7)
    ]
    assert not list(out.rglob("*.png"))


def test_vist_drops_stories_and_counts_a_picture_once(source, out):
    export_vist(source, "train", 6, 16)
    mapping = json.loads((source / "train_image_mapping.json").read_text())
    # Stories 0 and 1 begin with the same picture.
    mapping["10"] = mapping["00"]
    (source / "train_image_mapping.json").write_text(json.dumps(mapping))
    spoil([source / mapping[name] for name in ("00", "12", "34")])
    whole = open_dataset("vist", source, "train")["texts"][:]
    train = prepare("vist", source, out)["splits"]["train"]
    assert train["rows"] == {"read": 6, "kept": 3, "cut": 0, "dropped": 3}
    assert train["pictures"] == {"good": 26, "missing": 1, "corrupt": 2}
    assert len(bad_lines(out)) == 4
    rows = open_dataset("vist", out, "train")
    assert [row["texts"] for row in rows] == [whole[2], whole[4], whole[5]]
    assert {image.size for row in rows for image in row["images"]} == {(16, 16)}


def test_raw_vist_becomes_the_cleaned_pair(source, out):
    (source / "images/val").mkdir(parents=True)
    annotations = []
    for story in range(3):
        for order in range(2):
            photo = f"9{story}{order}"
            Image.new("RGB", (story + 1, order + 1)).save(source / f"images/val/{photo}.jpg")
            annotations.append(
                [
                    {
                        "story_id": str(story),
                        "photo_flickr_id": photo,
                        "worker_arranged_photo_order": order,
                        "text": f"step {order} of {story} .",
                    }
                ]
            )
    (source / "images/val/910.jpg").unlink()
    (source / "val.story-in-sequence.json").write_text(json.dumps({"annotations": annotations}))
    report = prepare("vist", source, out)["splits"]
    assert list(report) == ["val"] and report["val"]["rows"]["dropped"] == 1
    raw, rows = open_dataset("vist-raw", source, "val"), open_dataset("vist", out, "val")
    assert rows["texts"][:] == [raw["texts"][0], raw["texts"][2]]
    assert [[image.size for image in row["images"]] for row in rows] == [[(1, 1), (1, 2)], [(3, 1), (3, 2)]]


def test_talks_end_before_a_bad_picture(source, out):
    folder = source / "train"
    folder.mkdir(parents=True)
    lines = []
    for talk in range(3):
        turns = [{"turn": [{"__TEXT__": f"{talk}{turn}"}, {"__MEDIA__": f"-{talk}{turn}"}]} for turn in range(4)]
        turns[3]["turn"].pop()
        lines.append(json.dumps({"conversation_id": talk, "conversation": turns, "negative_candidate_media_keys": []}))
        for turn in range(3):
            Image.new("RGB", (talk + 1, turn + 1)).save(folder / f"-{talk}{turn}.jpg")
    # Nothing is written of a talk without a turn.
    lines.append(json.dumps({"conversation_id": 3, "conversation": [], "negative_candidate_media_keys": []}))
    (folder / "train_conversations.txt").write_text("\n".join(lines))
    # The last turn with a picture of the first talk, the second of the second.
    (folder / "-02.jpg").unlink()
    (folder / "-11.jpg").write_bytes(b"")
    report = prepare("mmdialog", source, out)["splits"]["train"]
    assert report["rows"] == {"read": 4, "kept": 1, "cut": 1, "dropped": 2}
    assert [(line["path"], line["row"]) for line in bad_lines(out)] == [
        (str(folder / "-02.jpg"), "cut"),
        (str(folder / "-11.jpg"), "dropped"),
    ]
    rows = open_dataset("mmdialog", out, "train")
    assert rows["texts"][:] == [["00", "01"], ["20", "21", "22", "23"]]
    sizes = [[image and image.size for image in row["images"]] for row in rows]
    assert sizes == [[(1, 1), (1, 2)], [(3, 1), (3, 2), (3, 3), None]]


@pytest.mark.parametrize("kind", EXPORTS)
def test_a_sound_export_is_indexed_as_it_is(source, out, kind):
    EXPORTS[kind](source, "train", 8, 16)
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*")}
    report = prepare(kind, source, out)["splits"]["train"]
    assert report["rows"] == {"read": 8, "kept": 8, "cut": 0, "dropped": 0}
    assert bad_lines(out) == [] and report["folders"] == {}
    for original, indexed in zip(open_dataset(kind, source, "train"), open_dataset(kind, out, "train"), strict=True):
        assert pixels(original) == pixels(indexed)
    assert before == {path: path.stat().st_mtime_ns for path in source.rglob("*")}


def test_files_of_img2dataset_become_a_table(source, out):
    for number, caption in enumerate(('the "best" cat', "a fox\n", "gone")):
        folder = source / "train/00000"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:09d}.txt").write_text(caption)
        if caption != "gone":
            Image.new("RGB", (number + 1, 1)).save(folder / f"{number:09d}.jpg")
    assert prepare("cc3m", source, out)["splits"]["train"]["rows"]["kept"] == 2
    rows = open_dataset("cc3m", out, "train")
    assert [(row["caption"], row["image"].width) for row in rows] == [('the "best" cat', 1), ("a fox", 2)]


def test_folders_of_captions_may_be_links(source, out, tmp_path):
    for name, folder in (("here", source / "train/00000"), ("elsewhere", tmp_path / "disk/00001")):
        folder.mkdir(parents=True)
        (folder / "000000000.txt").write_text(name)
        Image.new("RGB", (2, 1)).save(folder / "000000000.jpg")
    (source / "train/00001").symlink_to(tmp_path / "disk/00001")
    (source / "validation").mkdir()
    (source / "validation/00000").symlink_to(tmp_path / "disk/00001")
    prepare("cc3m", source, out)
    told = {split: open_dataset("cc3m", out, split)["caption"][:] for split in ("train", "validation")}
    assert told == {"train": ["here", "elsewhere"], "validation": ["elsewhere"]}


def test_links_that_lead_back_end(source, out):
    folder = source / "train/00000"
    folder.mkdir(parents=True)
    (folder / "000000000.txt").write_text("a fox")
    Image.new("RGB", (2, 1)).save(folder / "000000000.jpg")
    for name in ("loop", "other"):
        (source / "train" / name).symlink_to(source / "train")
    (source / "validation").symlink_to(source / "train")
    prepare("cc3m", source, out)
    assert open_dataset("cc3m", out, "train")["caption"][:] == ["a fox"]


def test_a_stopped_run_goes_on_where_it_was(source, out, monkeypatch):
    export_cc3m(source, "train", 30, 16)
    check, checked = module.check_picture, []

    def stops(path):
        if len(checked) == 11:
            raise KeyboardInterrupt
        checked.append(path)
        return check(path)

    monkeypatch.setattr(module, "check_picture", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare("cc3m", source, out)
    assert [path.name for path in out.iterdir()] == ["checked.jsonl"]
    # As a kill leaves it.
    with open(out / "checked.jsonl", "a") as journal:
        journal.write('["/half')
    rest = []
    monkeypatch.setattr(module, "check_picture", lambda path: rest.append(path) or check(path))
    assert prepare("cc3m", source, out)["splits"]["train"]["pictures"]["good"] == 30
    assert len(rest) == 19 and not set(rest) & set(checked)


def test_a_repaired_download_is_checked_where_it_changed(source, out, monkeypatch):
    export_cc3m(source, "train", 10, 16)
    paths = [source / f"train/{number:09d}.png" for number in (2, 5, 7)]
    whole = [path.read_bytes() for path in paths]
    spoil(paths)
    prepare("cc3m", source, out)
    for path, content in zip(paths, whole, strict=True):
        path.write_bytes(content)
    check, checked = module.check_picture, []
    monkeypatch.setattr(module, "check_picture", lambda path: checked.append(path) or check(path))
    assert prepare("cc3m", source, out)["splits"]["train"]["pictures"] == {"good": 10, "missing": 0, "corrupt": 0}
    assert sorted(checked) == sorted(map(str, paths))


def test_a_picture_that_the_system_could_not_read_is_checked_again(source, out, monkeypatch):
    export_cc3m(source, "train", 3, 16)
    bad, decode = str(source / "train/000000001.png"), images._decode

    def refused(file, formats):
        if str(file) == bad:
            raise PermissionError(13, "Permission denied", bad)
        return decode(file, formats)

    monkeypatch.setattr(images, "_decode", refused)
    assert prepare("cc3m", source, out)["splits"]["train"]["problems"] == {"broken picture": 1}
    monkeypatch.setattr(images, "_decode", decode)
    assert prepare("cc3m", source, out)["splits"]["train"]["pictures"] == {"good": 3, "missing": 0, "corrupt": 0}


def test_a_run_that_fails_leaves_the_index_of_the_last(source, out, monkeypatch):
    export_cc3m(source, "train", 4, 16)
    prepare("cc3m", source, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (source / "train/000000001.png").unlink()

    rows = iter(range(2))

    def full(picture):
        if next(rows, None) is None:
            raise OSError(28, "No space left on device")
        return picture.path

    monkeypatch.setattr(module, "_absolute", full)
    with pytest.raises(OSError, match="No space left"):
        prepare("cc3m", source, out)
    after = {path.name: path.read_bytes() for path in out.iterdir()}
    assert {name: content.strip() for name, content in after.items()} == {
        name: content.strip() for name, content in before.items()
    }


def test_several_processes_reach_the_same_verdicts(source, out, tmp_path):
    export_cc3m(source, "train", 120, 8)
    spoil([source / f"train/{number:09d}.png" for number in (2, 50, 119)])
    assert prepare("cc3m", source, out, workers=2) == prepare("cc3m", source, tmp_path / "other", workers=1)


def test_an_index_is_found_from_anywhere(source, out, tmp_path, monkeypatch):
    export_mmdialog(source, "train", 3, 16)
    monkeypatch.chdir(tmp_path)
    prepare("mmdialog", os.path.relpath(source), os.path.relpath(out))
    monkeypatch.chdir("/")
    assert any(image for row in open_dataset("mmdialog", out, "train") for image in row["images"])


def test_what_is_no_download_is_said(source, out):
    source.mkdir()
    with pytest.raises(FileNotFoundError, match=r"holds neither cc3m_\*\.tsv nor .*open them as cc3m-shards"):
        prepare("cc3m", source, out)
    export_cc3m(source, "train", 1, 16)
    with pytest.raises(ValueError, match="is the download itself"):
        prepare("cc3m", source, source)
    (source / "cc3m_train.tsv").write_text("caption\timage_path\nno path\n")
    with pytest.raises(ValueError, match=r"cc3m_train\.tsv, line 2: 1 columns"):
        prepare("cc3m", source, out)


def test_the_table_says_what_the_report_says(source, out):
    export_cc3m(source, "train", 5, 16)
    spoil([source / f"train/{number:09d}.png" for number in (0, 1, 2)])
    head, train, *places = as_table(prepare("cc3m", source, out)).splitlines()
    assert dict(zip(head.split(), train.split(), strict=True)) == {
        "split": "train",
        "rows": "5",
        "kept": "2",
        "cut": "0",
        "dropped": "3",
        "pictures": "5",
        "good": "2",
        "missing": "1",
        "corrupt": "2",
    }
    assert places[0] == f"train: 3 bad in {source / 'train'}" and len(places) == 4


def test_a_file_name_that_is_not_utf8_is_told(source, out):
    (source / "train").mkdir(parents=True)
    with open(os.path.join(os.fsencode(source / "train"), b"caf\xe9.txt"), "wb"):
        pass
    with pytest.raises(ValueError, match=r"caf.*\.txt': the name of this file is not UTF-8"):
        prepare("cc3m", source, out)
