"""Which split is trained with, and which judged by."""

import pytest

from minigpt5.data.readers import READERS
from minigpt5.data.splits import SPLIT_FILES, choose_split, find_splits


@pytest.fixture
def folder(tmp_path):
    def make(layout, *splits):
        for split in splits:
            path = tmp_path / SPLIT_FILES[layout][0].replace("{split}", split).replace("*", "0")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path

    return make


@pytest.mark.parametrize("layout", READERS)
def test_splits_are_found_by_their_files(folder, layout):
    root = folder(layout, "val", "train.2", "a b")
    (root / "else.txt").touch()
    assert find_splits(root, SPLIT_FILES[layout]) == ["a b", "train.2", "val"]


def test_a_talk_file_of_another_name_is_no_split(folder):
    root = folder("mmdialog", "val")
    (root / "other").mkdir()
    (root / "other/val_conversations.txt").touch()
    assert find_splits(root, SPLIT_FILES["mmdialog"]) == ["val"]


@pytest.mark.parametrize(
    ("splits", "role", "chosen"),
    [
        (("train", "validation"), "train", "train"),
        (("train", "val"), "validation", "val"),
        (("train", "valid", "test"), "validation", "valid"),
        (("train", "dev", "test"), "validation", "dev"),
        (("train", "test"), "validation", "test"),
        (("train", "validation", "val"), "validation", "validation"),
        (("Training", "Val"), "train", "Training"),
        (("Training", "Val"), "validation", "Val"),
        (("train2017", "val2017"), "validation", "val2017"),
        (("train2017", "val2017"), "train", "train2017"),
    ],
)
def test_a_plausible_name_is_found(folder, splits, role, chosen):
    assert choose_split(folder("vist", *splits), "vist", role) == chosen


@pytest.mark.parametrize(
    ("splits", "role", "named", "error", "told"),
    [
        (("train",), "validation", None, FileNotFoundError, "validation_split is not set, and no split .* has train$"),
        (("a", "b"), "train", None, FileNotFoundError, "train_split is not set, .* has a, b$"),
        (("val", "dev"), "validation", None, ValueError, "val, dev|dev, val could each be it"),
        (("val1", "val2", "test"), "validation", None, ValueError, "val1, val2 could each be it"),
        (("train", "val"), "validation", "test", FileNotFoundError, "there is no split test; .* has train, val"),
        ((), "train", None, FileNotFoundError, "is missing, or no folder in the layout vist"),
    ],
)
def test_what_cannot_be_told_says_which_there_are(folder, splits, role, named, error, told):
    with pytest.raises(error, match=told):
        choose_split(folder("vist", *splits), "vist", role, named)


def test_a_split_that_is_named_is_taken(folder):
    assert choose_split(folder("chat", "train", "mine"), "chat", "validation", "mine") == "mine"
    with pytest.raises(ValueError, match="no data set layout 'coco'; the layouts are"):
        choose_split(folder("chat"), "coco", "train")
