"""Readers on tiny files in the layouts of the real data sets."""

import json
from collections import Counter

import pytest
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node
from PIL import Image
from torch.utils.data import DataLoader

from minigpt5.data.readers import (
    READERS,
    open_dataset,
    read_cc3m,
    read_cc3m_shards,
    read_chat,
    read_llava,
    read_mmdialog,
    read_vist,
    read_vist_raw,
)
from minigpt5.storyworld.export import export_cc3m, export_mmdialog, export_vist


def paint(path, size=(5, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)


def cc3m(root, *lines):
    table = "\n".join(("caption\timage_path", *lines))
    (root / "cc3m_val.tsv").write_text(f"{table}\n", encoding="utf-8")
    return root


def vist(root, steps, mapping):
    (root / "val_cleaned.json").write_text(json.dumps({"1": [], "45530": steps}, indent=1))
    (root / "val_image_mapping.json").write_text(json.dumps(mapping))
    return root


def step(caption, image_id, index):
    return {"caption": caption, "image_id": image_id, "sequence_index": index}


def vist_raw(root, *sentences):
    (root / "sis").mkdir(exist_ok=True)
    content = {"images": [], "albums": [], "annotations": [[sentence] for sentence in sentences]}
    (root / "sis/val.story-in-sequence.json").write_text(json.dumps(content))
    return root


def sentence(text, photo, story, order):
    return {
        "original_text": text.upper(),
        "album_id": "7",
        "photo_flickr_id": photo,
        "story_id": story,
        "tier": "story-in-sequence",
        "worker_arranged_photo_order": order,
        "text": text,
        "storylet_id": f"{story}{order}",
    }


def mmdialog(root, *lines):
    (root / "test").mkdir(exist_ok=True)
    (root / "test" / "test_conversations.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return root


def talk(*turns):
    return json.dumps({"conversation_id": 7, "conversation": [{"turn": turn} for turn in turns]})


def chat(root, *lines):
    (root / "train.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return root


def message(role, *parts):
    content = [{"type": "image", "image": part} if "." in part else {"type": "text", "text": part} for part in parts]
    return {"role": role, "content": content}


def exchange(*messages):
    return json.dumps({"messages": messages})


def test_cc3m_gives_captions_and_pictures(tmp_path):
    paint(tmp_path / "val/000000001.jpg")
    rows = read_cc3m(cc3m(tmp_path, "a café by the sea\tval/000000001.jpg"), "val")
    assert rows["caption"][0] == "a café by the sea"
    assert rows[0]["image"].size == (5, 4)


def test_cc3m_reads_quoted_captions_as_pandas_writes_them(tmp_path):
    rows = read_cc3m(cc3m(tmp_path, '"the ""best"" cat"\tval/1.jpg'), "val")
    assert rows["caption"][0] == 'the "best" cat'


def test_cc3m_errors_name_file_and_line(tmp_path):
    with pytest.raises(ValueError, match=r"cc3m_val\.tsv, line 4: 1 columns"):
        read_cc3m(cc3m(tmp_path, '"two\nlines"\tval/1.jpg', "no path"), "val")
    (tmp_path / "cc3m_val.tsv").write_text("text\turl\n")
    with pytest.raises(ValueError, match=r'cc3m_val\.tsv, line 1: columns are \["text", "url"\]'):
        read_cc3m(tmp_path, "val")
    (tmp_path / "cc3m_val.tsv").write_bytes(b"caption\timage_path\nfine\t1.jpg\n\xff\t2.jpg\n")
    with pytest.raises(ValueError, match=r"cc3m_val\.tsv, line 3, byte 0: not UTF-8"):
        read_cc3m(tmp_path, "val")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", READERS)
def test_a_missing_table_is_named(tmp_path, kind, streaming):
    with pytest.raises(FileNotFoundError, match=r"val.* is missing"):
        open_dataset(kind, tmp_path, "val", streaming)


@pytest.mark.parametrize("streaming", [False, True])
def test_an_empty_split_has_no_rows(tmp_path, streaming):
    assert list(read_cc3m(cc3m(tmp_path), "val", streaming)) == []
    assert list(read_mmdialog(mmdialog(tmp_path), "test", streaming=streaming)) == []
    assert list(read_chat(chat(tmp_path), "train", streaming)) == []


def test_an_unknown_layout_names_those_known(tmp_path):
    with pytest.raises(ValueError, match=r"'coco'; the layouts are cc3m, cc3m-shards, vist"):
        open_dataset("coco", tmp_path, "val")


def test_vist_puts_steps_in_order(tmp_path):
    for name, width in (("a", 3), ("b", 6)):
        paint(tmp_path / f"val_images/{name}.png", (width, 4))
    steps = [step("then this .", "22", 1), step("first that .", "11", 0)]
    rows = read_vist(vist(tmp_path, steps, {"11": "val_images/a.png", "22": "val_images/b.png"}), "val")
    assert rows[1]["texts"] == ["first that .", "then this ."]
    assert [image.width for image in rows[1]["images"]] == [3, 6]


def test_vist_errors_name_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match=r"val_image_mapping\.json has no path for image_id 22 of story 45530"):
        read_vist(vist(tmp_path, [step("then", "22", 0)], {}), "val")
    with pytest.raises(ValueError, match=r"val_cleaned\.json, line 3, story 45530, step 0: no caption; the fields are"):
        read_vist(vist(tmp_path, [{"image_id": "22", "sequence_index": 0}], {"22": "x.png"}), "val")
    with pytest.raises(
        ValueError, match=r"line 3, story 45530, step 1: sequence_index is \"1\", expected a whole number"
    ):
        read_vist(vist(tmp_path, [step("a", "22", 0), step("b", "22", "1")], {"22": "x.png"}), "val")
    (tmp_path / "val_cleaned.json").write_text('{\n"1": [,]}')
    with pytest.raises(ValueError, match=r"val_cleaned\.json, line 2, column 7: not JSON"):
        read_vist(tmp_path, "val")


def test_raw_vist_gathers_stories_from_sentences_in_any_order(tmp_path):
    for name, width in (("11.jpg", 3), ("22.png", 6), ("33.gif", 9)):
        paint(tmp_path / "images/val" / name, (width, 4))
    told = [sentence("and then", "22", "5", 1), sentence("alone", "33", "6", 0), sentence("at first", "11", "5", 0)]
    rows = read_vist_raw(vist_raw(tmp_path, *told), "val")
    assert rows["texts"][:] == [["at first", "and then"], ["alone"]]
    assert [[image.width for image in row["images"]] for row in rows] == [[3, 6], [9]]


def test_raw_vist_errors_name_annotation_and_field(tmp_path):
    broken = sentence("b", "22", "5", 1)
    del broken["photo_flickr_id"]
    with pytest.raises(ValueError, match=r"val\.story-in-sequence\.json, annotations\[1\]: no photo_flickr_id"):
        read_vist_raw(vist_raw(tmp_path, sentence("a", "11", "5", 0), broken), "val")


def test_mmdialog_gives_turns_with_and_without_pictures(tmp_path):
    paint(tmp_path / "test/9f3.jpg")
    line = talk([{"__TEXT__": "look"}, {"__MEDIA__": "9f3"}, {"__TEXT__": "at this"}], [{"__TEXT__": "nice"}])
    row = read_mmdialog(mmdialog(tmp_path, line), "test")[0]
    assert row["texts"] == ["look at this", "nice"]
    assert row["images"][0].size == (5, 4) and row["images"][1] is None


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ("{", r", column 2: not JSON"),
        ("[]", r": expected an object with conversation, got \[\]"),
        ('{"talk": 1}', r": no conversation; the fields are talk"),
        ('{"conversation": [{}]}', r", conversation\[0\]: no turn"),
        ('{"conversation": [{"turn": [3]}]}', r", conversation\[0\]\.turn\[0\]: expected an object, got 3"),
        (
            '{"conversation": [{"turn": [{"__TEXT__": 3}]}]}',
            r", conversation\[0\]\.turn\[0\]: __TEXT__ is 3",
        ),
    ],
)
@pytest.mark.parametrize("streaming", [False, True])
def test_mmdialog_errors_name_file_line_and_field(tmp_path, broken, problem, streaming):
    with pytest.raises(ValueError, match=rf"test_conversations\.txt, line 2{problem}"):
        list(read_mmdialog(mmdialog(tmp_path, talk([{"__TEXT__": "hello"}]), broken), "test", streaming=streaming))


def test_a_missing_picture_of_a_talk_fails_where_it_is_read(tmp_path):
    rows = read_mmdialog(mmdialog(tmp_path, talk([{"__MEDIA__": "9f3"}])), "test")
    with pytest.raises(FileNotFoundError, match=r"9f3\.jpg"):
        rows[0]


def test_a_talk_can_end_before_a_missing_picture(tmp_path):
    lines = talk([{"__TEXT__": "hello"}], [{"__MEDIA__": "9f3"}], [{"__TEXT__": "bye"}]), talk([{"__TEXT__": "alone"}])
    rows = read_mmdialog(mmdialog(tmp_path, *lines), "test", cut_at_missing=True)
    assert rows["texts"][:] == [["hello"], ["alone"]]


def test_pictures_are_not_opened_before_they_are_read(tmp_path):
    rows = read_cc3m(cc3m(tmp_path, "gone\tval/missing.jpg"), "val")
    with pytest.raises(FileNotFoundError):
        rows[0]


@pytest.mark.parametrize("streaming", [False, True])
def test_chats_are_what_the_processor_learns_from(tmp_path, tiny_processor, streaming):
    paint(tmp_path / "pictures/fox.png")
    root = chat(
        tmp_path,
        exchange(
            {"role": "system", "content": "Be brief."},
            message("user", "pictures/fox.png", "and then?"),
            message("assistant", "it sleeps", "pictures/fox.png"),
        ),
    )
    (row,) = read_chat(root, "train", streaming=streaming)
    batch = tiny_processor.training_batch([row["messages"]])
    assert [target.size for target in batch["targets"]] == [(5, 4)]
    assert batch["pixel_values"].shape[0] == 1
    direct = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "and then?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "it sleeps"}, {"type": "image"}]},
    ]
    assert tiny_processor.render(row["messages"])[0] == tiny_processor.render(direct)[0]


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ('{"messages": ', r", column 13: not JSON"),
        ('{"text": "a"}', r": no messages; the fields are text"),
        (exchange({"content": "a"}), r", messages\[0\]: no role"),
        (exchange(message("bot", "a")), r', messages\[0\]: role is "bot", expected user'),
        (exchange(message("user", "a"), message("system", "b")), r', messages\[1\]: role is "system"'),
        (exchange(message("user", "a")), r": messages end with what the assistant is to learn"),
        (exchange(message("system", "a"), message("assistant", "b")), r": messages end with what the assistant is to"),
        (exchange(message("system", "a.png"), message("assistant", "b")), r"a system message shows no picture"),
        (exchange({"role": "user", "content": [{"type": "sound"}]}), r"content\[0\]: type is \"sound\""),
        (exchange({"role": "user", "content": [{"type": "image"}]}), r"content\[0\]: no image; the fields are type"),
        (exchange({"role": "user", "content": 3}), r"messages\[0\]: content is 3, expected a list"),
    ],
)
def test_chat_errors_name_file_line_and_field(tmp_path, broken, problem):
    fine = exchange(message("user", "a"), message("assistant", "b"))
    with pytest.raises(ValueError, match=rf"train\.jsonl, line 3.*{problem}"):
        read_chat(chat(tmp_path, fine, "", broken), "train")


@pytest.mark.parametrize("streaming", [False, True])
def test_shards_of_img2dataset_are_read(tmp_path, monkeypatch, shard, streaming):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    shard(tmp_path / "train/00000.tar", fox=3, cat=4)
    shard(tmp_path / "train/00001.tar", dog=5)
    rows = read_cc3m_shards(tmp_path, "train", streaming=streaming)
    assert [(row["caption"], row["image"].width) for row in rows] == [("fox", 3), ("cat", 4), ("dog", 5)]


def test_shards_that_are_cut_off_are_named_before_training(tmp_path, shard):
    shard(tmp_path / "train/00000.tar", fox=3)
    shard(tmp_path / "train/00001.tar", dog=5)
    whole = (tmp_path / "train/00001.tar").read_bytes()
    (tmp_path / "train/00001.tar").write_bytes(whole[:1500])
    with pytest.raises(ValueError, match=r"00001\.tar and 0 other shards are cut off"):
        read_cc3m_shards(tmp_path, "train", streaming=True)


@pytest.mark.parametrize(
    ("kind", "export"), [("cc3m", export_cc3m), ("vist", export_vist), ("mmdialog", export_mmdialog)]
)
def test_a_stream_has_the_rows_of_the_table(tmp_path, kind, export):
    export(tmp_path, "train", 50, 16)
    table, stream = (open_dataset(kind, tmp_path, "train", streaming) for streaming in (False, True))
    assert isinstance(table, Dataset) and isinstance(stream, IterableDataset)
    assert stream.features == table.features
    words = "caption" if kind == "cc3m" else "texts"
    assert Counter(str(row[words]) for row in stream) == Counter(map(str, table[words]))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_seed_says_the_order(tmp_path, streaming):
    root = cc3m(tmp_path, *(f"{number}\tval/x.jpg" for number in range(100)))
    paint(tmp_path / "val/x.jpg")

    def order(seed):
        return [int(row["caption"]) for row in open_dataset("cc3m", root, "val", streaming, seed)]

    assert order(1) == order(1) != order(2)
    assert sorted(order(1)) == list(range(100))
    assert order(1) != order(None)


@pytest.mark.parametrize("seed", [None, 5])
@pytest.mark.parametrize(("streaming", "count"), [(False, 100), (True, 100), (True, 5)])
@pytest.mark.parametrize("ranks", [3, 5])
def test_ranks_and_workers_share_rows_without_loss_or_repeat(tmp_path, streaming, count, seed, ranks):
    # 48 parts are shared by 3 ranks in whole parts, by 5 row by row.
    root = cc3m(tmp_path, *(f"{number}\tval/x.jpg" for number in range(count)))
    paint(tmp_path / "val/x.jpg", (1, 1))
    seen = []
    for rank in range(ranks):
        rows = split_dataset_by_node(open_dataset("cc3m", root, "val", streaming, seed), rank, ranks)
        own = [int(row["caption"]) for row in DataLoader(rows, batch_size=None, num_workers=2)]
        assert len(own) < count
        seen += own
    assert sorted(seen) == list(range(count))


def test_shards_are_shared_without_loss_or_repeat(tmp_path, shard):
    for number in range(4):
        shard(tmp_path / f"train/{number:05d}.tar", **{f"{number}-{i}": 2 for i in range(5)})
    seen = []
    for rank in range(3):
        rows = split_dataset_by_node(open_dataset("cc3m-shards", tmp_path, "train", True, 0), rank, 3)
        seen += [row["caption"] for row in DataLoader(rows, batch_size=None, num_workers=2)]
    assert sorted(seen) == sorted(f"{number}-{i}" for number in range(4) for i in range(5))


HUMAN, GPT = {"from": "human", "value": "<image>\nWho is it?"}, {"from": "gpt", "value": "A fox."}


def llava(root, *turns, **more):
    """A conversation about a picture, or about none where `image=None`."""
    content = {"id": "1", "image": "coco/a.png", "conversations": turns} | more
    content = {name: value for name, value in content.items() if value is not None}
    (root / "train.json").write_text(json.dumps([content]))
    return root


@pytest.mark.parametrize("streaming", [False, True])
def test_llava_s_conversations_have_a_row_a_reply(tmp_path, tiny_processor, streaming):
    paint(tmp_path / "coco/a.png")
    root = llava(tmp_path, HUMAN, GPT, {"from": "human", "value": "Where?"}, {"from": "gpt", "value": "Here."})
    rows = list(read_llava(root, "train", streaming))
    assert [[part["text"] for part in row["messages"][-1]["content"]] for row in rows] == [["A fox."], ["Here."]]
    picture, text = rows[1]["messages"][0]["content"]
    assert picture["image"].size == (5, 4) and text["text"] == "Who is it?"
    labels = tiny_processor.training_batch([row["messages"] for row in rows]).labels
    assert [tiny_processor.tokenizer.decode(row[row >= 0]).strip(" #") for row in labels] == ["A fox.", "Here."]
    (row,) = read_llava(llava(tmp_path, HUMAN | {"value": "Who?"}, GPT, image=None), "train", streaming)
    assert [part["text"] for message in row["messages"] for part in message["content"]] == ["Who?", "A fox."]


def test_llava_s_replies_before_a_question_and_questions_without_a_reply_are_left_out(tmp_path):
    paint(tmp_path / "coco/a.png")
    said = [{"from": "gpt", "value": "Hello."}, HUMAN, GPT, {"from": "human", "value": "Where?"}]
    (row,) = read_llava(llava(tmp_path, *said), "train")
    assert [part["text"] for message in row["messages"] for part in message["content"]] == [
        None,
        "Who is it?",
        "A fox.",
    ]
    content = {"image": None, "conversations": [HUMAN | {"value": "Who?"}, GPT]}
    (tmp_path / "train.json").write_text(json.dumps([content]))
    (row,) = read_llava(tmp_path, "train")
    assert [part["text"] for message in row["messages"] for part in message["content"]] == ["Who?", "A fox."]


@pytest.mark.parametrize(
    ("turns", "more", "told"),
    [
        ([GPT, GPT, HUMAN], {}, r'\[0\].conversations\[1\]: from is "gpt", expected human'),
        ([HUMAN, HUMAN], {}, r"conversations\[1\]: from is \"human\", expected gpt"),
        ([HUMAN | {"value": "Who?"}, GPT], {}, "0 <image> in 2 turns and a picture; expected one"),
        ([HUMAN | {"value": "<image> <image>"}, GPT], {}, "2 <image> in 2 turns and a picture; expected one"),
        ([HUMAN, GPT], {"image": None}, "1 <image> in 2 turns and no picture; expected one"),
        ([HUMAN], {}, "1 <image> in 1 turns and a picture; expected one for the picture, and a question with a reply"),
        ([GPT], {"image": None}, "0 <image> in 1 turns and no picture; expected"),
        ([HUMAN, GPT], {"image": 3}, r"\[0\]: image is 3, expected a string"),
        ([HUMAN, GPT | {"value": None}], {}, r"conversations\[1\]: value is null, expected a string"),
        ([], {"conversations": None}, r"\[0\]: no conversations; the fields are id, image"),
    ],
)
def test_llava_errors_name_conversation_turn_and_field(tmp_path, turns, more, told):
    with pytest.raises(ValueError, match=told):
        read_llava(llava(tmp_path, *turns, **more), "train")
