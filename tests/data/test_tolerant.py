"""Missing and broken pictures while training: passed over, counted, and too many of them stop the run."""

import json

import pytest
from datasets.distributed import split_dataset_by_node
from PIL import Image
from torch.utils.data import DataLoader

from minigpt5.data.readers import open_dataset
from minigpt5.data.tolerant import TooManyBadRows, tolerate
from minigpt5.storyworld.export import export_cc3m, export_mmdialog, export_vist

EXPORTS = {"cc3m": export_cc3m, "vist": export_vist, "mmdialog": export_mmdialog}


def break_picture(path, how):
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif how == "html":
        path.write_text("<html>404 not found</html>")
    else:
        path.write_bytes(b"")


@pytest.fixture
def spoilt(tmp_path):
    """CC3M of 40 rows, of which 3, 8, 20 and 33 have no good picture."""
    export_cc3m(tmp_path, "train", 40, 16)
    for number, how in ((3, "missing"), (8, "truncated"), (20, "html"), (33, "empty")):
        break_picture(tmp_path / f"train/{number:09d}.png", how)
    return tmp_path


def test_another_row_stands_in_for_a_bad_one(spoilt):
    rows = tolerate(open_dataset("cc3m", spoilt, "train"), 0.1)
    captions = rows.rows["caption"][:]
    read = [row["caption"] for row in (rows[index] for index in range(40))]
    assert [index for index in range(40) if read[index] != captions[index]] == [3, 8, 20, 33]
    assert len(rows) == 40
    assert rows.count.read == 40 + rows.count.bad >= 44
    assert all(f"{number:09d}.png" in " ".join(rows.count.first) for number in (3, 8, 20, 33))


def test_who_stands_in_is_a_matter_of_seed_and_index_alone(spoilt):
    opened = open_dataset("cc3m", spoilt, "train")
    whole, resumed = tolerate(opened, 0.5, seed=4), tolerate(opened, 0.5, seed=4)
    expected = {index: whole[index]["caption"] for index in range(40)}
    # As if stopped before row 20, and again in another order.
    for index in (33, 20, 8, 3, 20):
        row = resumed[index]
        assert row["caption"] == expected[index]
    others = [tolerate(opened, 0.5, seed=seed)[3]["caption"] for seed in range(8)]
    assert len(set(others)) > 1


def test_pictures_are_opened_as_they_are(spoilt):
    opened = open_dataset("cc3m", spoilt, "train")
    assert tolerate(opened)[5]["image"].tobytes() == opened[5]["image"].convert("RGB").tobytes()


def test_a_stream_leaves_bad_rows_out(spoilt):
    captions = open_dataset("cc3m", spoilt, "train")["caption"][:]
    stream = tolerate(open_dataset("cc3m", spoilt, "train", streaming=True), 0.1)
    expected = sorted(caption for index, caption in enumerate(captions) if index not in (3, 8, 20, 33))
    assert sorted(row["caption"] for row in stream) == expected
    assert (stream.count.read, stream.count.bad) == (40, 4)


@pytest.mark.parametrize("streaming", [False, True])
def test_too_many_stop_the_run_and_are_named(spoilt, streaming):
    rows = tolerate(open_dataset("cc3m", spoilt, "train", streaming), 0.03)
    with pytest.raises(TooManyBadRows, match=r"(?s)^4 of the \d+ rows read so far .*3\.00% may.*\d\.png: ") as error:
        for _ in iter(rows) if streaming else (rows[index] for index in (3, 8, 20, 33)):
            pass
    named = [f"{number:09d}.png" for number in (3, 8, 20, 33)]
    assert sum(name in str(error.value) for name in named) >= 2


def test_a_folder_without_any_picture_stops_the_run_at_once(tmp_path):
    export_cc3m(tmp_path, "train", 5, 16)
    for path in (tmp_path / "train").iterdir():
        path.unlink()
    with pytest.raises(TooManyBadRows, match=r"^2 of the 2 rows read so far"):
        tolerate(open_dataset("cc3m", tmp_path, "train"))[0]


def test_a_share_of_nothing_bears_nothing(spoilt):
    rows = tolerate(open_dataset("cc3m", spoilt, "train"), 0.0)
    rows[0]
    with pytest.raises(TooManyBadRows, match="1 of the 2 rows read so far"):
        rows[3]


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_share_is_a_share(spoilt, share):
    with pytest.raises(ValueError, match=r"at least 0 and less than 1"):
        tolerate(open_dataset("cc3m", spoilt, "train"), share)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["vist", "mmdialog"])
def test_a_bad_picture_within_a_row_spoils_the_row(tmp_path, kind, streaming):
    EXPORTS[kind](tmp_path, "train", 12, 16)
    whole = list(open_dataset(kind, tmp_path, "train", streaming))
    path = sorted(tmp_path.rglob("*.png"))[2]
    break_picture(path, "truncated")
    rows = tolerate(open_dataset(kind, tmp_path, "train", streaming))
    read = list(rows) if streaming else [rows[index] for index in range(12)]
    assert rows.count.bad == 1 and path.name in rows.count.first[0]
    assert len(read) == (11 if streaming else 12)
    told = [row["texts"] for row in whole]
    assert all(row["texts"] in told for row in read)
    nothing = [[image is None for image in row["images"]] for row in read]
    assert nothing.count([False] * 5) == len(read) if kind == "vist" else any(map(any, nothing))


@pytest.mark.parametrize("streaming", [False, True])
def test_chats_are_tolerated_too(tmp_path, streaming):
    Image.new("RGB", (3, 2)).save(tmp_path / "here.png")
    lines = [
        {
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": name}, {"type": "image", "image": name}]},
                {"role": "assistant", "content": "yes"},
            ]
        }
        for name in ("here.png", "gone.png")
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = tolerate(open_dataset("chat", tmp_path, "train", streaming), 0.5)
    read = list(rows) if streaming else [rows[0], rows[1]]
    assert {row["messages"][0]["content"][1]["image"].size for row in read} == {(3, 2)}
    assert rows.count.first == [f"{tmp_path}/gone.png: no such file"]


def test_pictures_in_shards_are_named_by_their_key(tmp_path, shard):
    shard(tmp_path / "train/00000.tar", fox=3, cat=b"<html>", dog=5)
    rows = tolerate(open_dataset("cc3m-shards", tmp_path, "train", streaming=True), 0.1)
    assert [(row["caption"], row["image"].width) for row in rows] == [("fox", 3), ("dog", 5)]
    assert len(rows.count.first) == 1 and "train/00000.tar/000000001.jpg: not a picture" in rows.count.first[0]


def test_ranks_and_workers_share_the_good_rows_of_a_stream(spoilt):
    captions = open_dataset("cc3m", spoilt, "train")["caption"][:]
    seen = []
    for rank in range(3):
        opened = split_dataset_by_node(open_dataset("cc3m", spoilt, "train", True, seed=1), rank, 3)
        seen += [row["caption"] for row in DataLoader(tolerate(opened, 0.1), batch_size=None, num_workers=2)]
    assert sorted(seen) == sorted(caption for index, caption in enumerate(captions) if index not in (3, 8, 20, 33))


def test_an_epoch_has_an_order_of_its_own(spoilt):
    stream = tolerate(open_dataset("cc3m", spoilt, "train", True, seed=1), 0.2)
    first = [row["caption"] for row in stream]
    assert [row["caption"] for row in stream] == first
    stream.set_epoch(1)
    second = [row["caption"] for row in stream]
    assert second != first and sorted(second) == sorted(first)


def test_the_stop_comes_through_a_loader_s_workers(spoilt):
    rows = tolerate(open_dataset("cc3m", spoilt, "train"), 0.0)
    with pytest.raises(TooManyBadRows, match=r"\.png"):
        list(DataLoader(rows, batch_size=None, num_workers=1))
