"""Exports are read by the readers of the real data sets, with the texts and pictures that the seeds say."""

import json

import pytest

from minigpt5.data.readers import read_cc3m, read_chat, read_mmdialog, read_vist
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.export import EXPORTS, export_cc3m, export_chats, export_mmdialog, export_vist
from minigpt5.storyworld.language import describes
from minigpt5.storyworld.scene import Character, Scene, sample_scene, split_rng
from minigpt5.storyworld.stories import sample_story, sample_talk
from minigpt5.storyworld.tasks import TASKS, training_item

SPLIT, COUNT, SIZE = "validation", 12, 40


@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
def test_the_truth_of_every_picture_lies_beside_it(tmp_path, export):
    export(tmp_path, SPLIT, 2, SIZE)
    truth = json.loads((tmp_path / f"{SPLIT}_truth.json").read_text())
    assert set(truth) == {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.png")}
    for row in truth.values():
        people = {name: Character(**row.pop(name)) for name in ("hero", "companion") if row[name]}
        Scene(**row | people)


def test_cc3m_export_is_read(tmp_path):
    export_cc3m(tmp_path, SPLIT, COUNT, SIZE)
    rows = read_cc3m(tmp_path, SPLIT)
    assert len(rows) == COUNT
    for seed, row in enumerate(rows):
        scene = sample_scene(split_rng(SPLIT, seed), companion_share=0.4)
        assert describes(row["caption"], scene)
        assert row["image"].tobytes() == draw(scene, SIZE).tobytes()


def test_vist_export_is_read(tmp_path):
    export_vist(tmp_path, SPLIT, COUNT, SIZE)
    rows = read_vist(tmp_path, SPLIT)
    assert len(rows) == COUNT
    for seed, row in enumerate(rows):
        steps = sample_story(split_rng(SPLIT, seed)).steps
        assert row["texts"] == [step.text for step in steps]
        assert [image.tobytes() for image in row["images"]] == [draw(step.scene, SIZE).tobytes() for step in steps]


def test_mmdialog_export_is_read(tmp_path):
    export_mmdialog(tmp_path, SPLIT, COUNT, SIZE)
    rows = read_mmdialog(tmp_path, SPLIT)
    assert len(rows) == COUNT
    for seed, row in enumerate(rows):
        talk = sample_talk(split_rng(SPLIT, seed))
        assert row["texts"] == [turn.text for turn in talk]
        assert [image and image.size for image in row["images"]] == [turn.scene and (SIZE, SIZE) for turn in talk]


@pytest.mark.parametrize("split", ["train", "validation"])
@pytest.mark.parametrize("task", TASKS)
def test_chat_exports_are_read_and_judged_in_other_words(tmp_path, task, split):
    export_chats(task, tmp_path, split, COUNT, SIZE)
    rows = read_chat(tmp_path, split)
    assert len(rows) == COUNT
    for seed, row in enumerate(rows):
        rng = split_rng(split, seed)
        item = training_item(task, rng) if split == "train" else TASKS[task](rng, "fresh")
        told = [part for message in row["messages"] for part in message["content"]]
        turns = [part for turn in (*item.before, item) for part in (*turn.question, *turn.answer)]
        for part, true in zip(told, turns, strict=True):
            if isinstance(true, Scene):
                assert part["image"].tobytes() == draw(true, SIZE).tobytes()
            else:
                assert part["text"] == true


def test_a_folder_holds_one_export(run_program, refused, tmp_path, capsys):
    def run(count):
        return ("training/export_storyworld", "--cc3m", f"{{train: {count}}}", "--out", tmp_path / "out")

    run_program(*run(2))
    run_program(*run(2))
    assert capsys.readouterr().out.endswith("out: already exported\n")
    assert "out holds another export; name a new folder" in refused(*run(3))
    assert len(read_cc3m(tmp_path / "out/cc3m", "train")) == 2


def test_an_export_of_nothing_is_one_line(refused, tmp_path):
    told = refused("training/export_storyworld", "--out", tmp_path / "out")
    assert told.startswith("nothing to export: name splits and counts of a layout, cc3m, vist,")
    assert not (tmp_path / "out").exists()
