"""Drawn emoji: the package's layout, names of skin tones, and the split by name."""

import json

import pytest
from PIL import Image

from minigpt5.data.emoji import emoji_rows
from minigpt5.data.prepare import prepare
from minigpt5.data.readers import read_cc3m


@pytest.fixture
def package(tmp_path):
    """Eighty names; every other one is drawn in two skin tones, one of which the set lacks."""
    folder = tmp_path / "package/img/google/64"
    folder.mkdir(parents=True)
    entries = []
    for number in range(80):
        images = [f"{number}.png", f"{number}-light.png"]
        for image in images:
            Image.new("RGBA", (64, 64), (number, 0, 0, 255)).save(folder / image)
        entry = {"name": f"THING {number}", "image": images[0], "has_img_google": True}
        if number % 2:
            there = {"image": images[1], "has_img_google": True}
            entry["skin_variations"] = {"1F3FB-1F3FF": there, "1F3FC": {"image": "none.png", "has_img_google": False}}
        entries.append(entry)
    (tmp_path / "package/emoji.json").write_text(json.dumps(entries))
    return tmp_path / "package"


def test_every_drawn_name_is_in_one_split(package):
    splits = {name: [row.texts[0] for row in emoji_rows(package, name)] for name in ("train", "validation", "test")}
    said = [text for texts in splits.values() for text in texts]
    assert sorted(said) == sorted(
        [f"thing {number}" for number in range(80)]
        + [f"thing {number}, light and dark skin tone" for number in range(1, 80, 2)]
    )


def test_what_is_held_back_is_told_apart_by_whether_training_shows_it(package):
    train, validation, test = (
        {row.texts[0] for row in emoji_rows(package, split)} for split in ("train", "validation", "test")
    )
    base = {name.partition(",")[0] for name in train}
    assert validation
    assert {name.partition(",")[0] for name in validation} <= base
    assert test
    assert not {name.partition(",")[0] for name in test} & base


def test_the_index_is_read_as_cc3m(package, tmp_path):
    report = prepare("emoji", package, tmp_path / "index")
    rows = {split: read_cc3m(tmp_path / "index", split) for split in ("train", "validation", "test")}
    assert {split: len(rows[split]) for split in rows} == {
        split: found["rows"]["kept"] for split, found in report["splits"].items()
    }
    assert rows["train"][0]["image"].size == (64, 64)


def test_what_is_wrong_is_told_with_its_place(package):
    (package / "emoji.json").write_text(json.dumps([{"name": "A", "skin_variations": {"X": {"has_img_google": True}}}]))
    with pytest.raises(ValueError, match=r"emoji\.json, \[0\]\.skin_variations\[X\]: no image"):
        list(emoji_rows(package, "train"))
    (package / "emoji.json").write_text('{"not": "a list"}')
    with pytest.raises(ValueError, match=r"expected a list"):
        list(emoji_rows(package, "train"))
