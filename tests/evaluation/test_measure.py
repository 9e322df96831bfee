"""Figures of replies."""

import importlib
import inspect
import json

import pytest
import torch
from PIL import Image
from torch import nn

import minigpt5.metrics
from minigpt5.evaluation import measure
from minigpt5.evaluation.items import (
    Item,
    alignment_items,
    dialogue_items,
    story_items,
    text_part,
    user_message,
)
from minigpt5.evaluation.measure import COLUMNS, Measurements, Weights
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.evaluation.report import markdown, write_report
from minigpt5.evaluation.storyworld import judged_bounds, read_truth, storyworld_columns
from minigpt5.metrics import pictures
from minigpt5.metrics.intervals import Interval
from minigpt5.metrics.items import ItemMetric
from minigpt5.metrics.registry import METRICS
from minigpt5.utils.images import open_image, to_tensor


class Encoder(nn.Module):
    """Pictures as their pixels, texts as their letters."""

    def encode_pictures(self, pictures):
        return nn.functional.normalize(torch.stack([to_tensor(picture, 8).flatten() for picture in pictures]), dim=-1)

    def encode_texts(self, texts):
        rows = torch.zeros(len(texts), 3 * 64)
        for row, text in zip(rows, texts, strict=True):
            for letter in text.lower():
                row[ord(letter) % 192] += 1
        return nn.functional.normalize(rows, dim=-1)


class Squeezed(nn.Module):
    """Features that are pixels."""

    num_features = 48

    def forward(self, pictures):
        return nn.functional.adaptive_avg_pool2d(pictures.float() / 255, 4).flatten(1)


@pytest.fixture
def weights(monkeypatch):
    """Small networks in the place of CLIP and Inception."""
    monkeypatch.setattr(pictures, "inception_features", lambda *_: Squeezed())
    return Weights(clip=Encoder())


def perfect(items, root):
    """A folder with the truth as the reply to each item."""
    replies = ReplyFolder(root)
    replies.claim({"seed": 0})
    for item in items:
        picture = [open_image(item.picture)] if item.picture else []
        replies.write(item.id, [*([item.text] if item.sentence is None else []), *picture])
    return replies


def value(task, name):
    return getattr(task.figures[name], "estimate", task.figures[name])


def measured_of(items, replies, weights, root=None):
    """All figures, with the judge's where the data set's folder is given."""
    columns = storyworld_columns(read_truth(root, "validation")) if root else None
    measured = Measurements(items, replies, weights, columns)
    measured.measure()
    return measured


def test_who_is_asked_for_words_and_says_nothing_is_wrong(tmp_path):
    prompt = user_message([text_part("What is it?")])
    item = Item("0", "0", "reply", (), None, "A fox.", None, "never", prompt, answers=("A fox.",))
    replies = ReplyFolder(tmp_path)
    replies.claim({})
    replies.write("0", [])
    figures = measured_of([item], replies, Weights()).tasks["reply"].figures
    assert figures["exact_match"] == 0 == figures["rouge_l"]


def test_true_replies_have_the_best_figures(data, tmp_path, weights):
    items = story_items(data / "vist", "validation", tasks=("every step", "next step"))
    measured = measured_of(items, perfect(items, tmp_path), weights, data / "vist")
    steps, told = measured.tasks["every step"], measured.tasks["next step"]
    bounds = judged_bounds(measured)
    assert measured.not_computed == {}
    for task in (steps, told):
        assert value(task, "clip_i") == pytest.approx(1) and value(task, "fid") == pytest.approx(0, abs=1e-3)
        assert value(task, "frame_accuracy") == 1 and value(task, "character_f1") == 1
        assert bounds[task.name]["ceiling"]["frame_accuracy"] == 1
    assert value(steps, "hero_identity") == 1 and "clip_t" in steps.figures and "clip_t" not in told.figures
    assert value(told, "bleu_1") == pytest.approx(1) and value(told, "rouge_l") == pytest.approx(1)
    assert value(told, "text_accuracy") == 1 and value(told, "text_agrees") == 1
    assert steps.figures["inception_score"] >= 1
    assert value(steps, "story_fid_as_published") == pytest.approx(0, abs=1e-3)
    assert any("next step: InceptionScore needs" in note for note in measured.notes) is (len(told.items) < 10)


def test_each_task_has_the_figures_of_what_it_asks(data, tmp_path, weights):
    """What was asked for decides which figures there are, as the needs of the registry say."""
    items = story_items(data / "vist", "validation", tasks=("every step", "next step"))
    measured = measured_of(items, perfect(items, tmp_path), weights)
    pictures = {"clip_i", "fid", "kid"}
    steps, told = (set(task.figures) for task in measured.tasks.values())
    assert pictures <= steps & told
    assert steps - told - {"inception_score", "inception_score_std"} == {"clip_t", "story_fid_as_published"}
    assert {"bleu_1", "bleu_2", "rouge_l", "s_bert"} <= told - steps
    assert not {"frame_accuracy", "hero_identity", "mm_relevance_per_turn", "hps_v2"} & (steps | told)


def test_a_system_that_says_nothing_has_no_figures_of_text(data, tmp_path, weights):
    items = story_items(data / "vist", "validation", tasks=("next step",))
    replies = ReplyFolder(tmp_path)
    replies.claim({})
    for item in items:
        replies.write(item.id, [open_image(item.picture)])
    (task,) = measured_of(items, replies, weights).tasks.values()
    assert "bleu_1" not in task.figures and "clip_i" in task.figures


def test_a_turn_that_shows_a_picture_alone_is_in_no_figure_of_words(tmp_path, weights):
    (tmp_path / "val").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "val/5.png")
    turns = [[{"__TEXT__": "Hello."}], [{"__MEDIA__": "5"}], [{"__TEXT__": "Nice."}], [{"__TEXT__": "A red cat."}]]
    talk = json.dumps({"conversation": [{"turn": turn} for turn in turns]})
    (tmp_path / "val/val_conversations.txt").write_text(talk)
    items = dialogue_items(tmp_path, "val")
    assert [item.text for item in items] == ["", "A red cat."]
    (task,) = measured_of(items, perfect(items, tmp_path / "out"), weights).tasks.values()
    assert value(task, "rouge_l") == 1 and value(task, "picture_accuracy") == 1
    assert value(task, "mm_relevance_mmdialog") == pytest.approx(100)


def test_turns_are_compared_with_the_true_ones(data, tmp_path, weights):
    items = dialogue_items(data / "mmdialog", "validation")
    measured = measured_of(items, perfect(items, tmp_path), weights)
    (task,) = measured.tasks.values()
    assert value(task, "mm_relevance_per_turn") == pytest.approx(1)
    assert value(task, "mm_relevance_mmdialog") == pytest.approx(100)
    assert value(task, "picture_f1") == 1 and value(task, "character_bleu_2_as_published") == pytest.approx(1)
    assert any("BLEU of characters" in note for note in measured.notes)


def test_a_reply_without_a_picture_counts_as_none(data, tmp_path, weights):
    items = alignment_items(data / "cc3m", "validation")
    replies = perfect(items[:3], tmp_path)
    replies.write(items[3].id, [])
    measured = measured_of(items, replies, weights, data / "cc3m")
    write_report(tmp_path, "Pairs", replies.settings, measured, judged_bounds(measured))
    page = (tmp_path / "results.md").read_text()
    assert "| items | 4 |" in page and "| pictures | 3 |" in page
    assert "InceptionScore needs 10 pictures, there are 3" in page


def test_pictures_are_taken_a_few_at_a_time_and_groups_whole(data, tmp_path, weights, monkeypatch):
    items = story_items(data / "vist", "validation", tasks=("every step",))
    replies = perfect(items, tmp_path)
    at_once = measured_of(items, replies, weights, data / "vist").tasks["every step"].figures
    monkeypatch.setattr(measure, "CHUNK", 1)
    apart = measured_of(items, replies, weights, data / "vist").tasks["every step"].figures
    assert apart.keys() == at_once.keys()
    assert apart["hero_identity"] == at_once["hero_identity"]
    assert apart["clip_t"].estimate == pytest.approx(at_once["clip_t"].estimate)


@pytest.mark.parametrize("entry", METRICS, ids=lambda entry: entry.name)
def test_a_registered_metric_says_what_it_takes(entry):
    """Its needs are columns that there are, as many as `update` has arguments; it is public."""
    module, name = entry.home.split(".")
    metric = getattr(importlib.import_module(f"minigpt5.metrics.{module}"), name)
    assert getattr(minigpt5.metrics, name) is metric and name in minigpt5.metrics.__all__
    assert set(entry.needs) <= {*COLUMNS, *storyworld_columns({})}
    update = metric.update_both if entry.level == "set" and len(entry.needs) == 2 else metric.update
    assert len(inspect.signature(update).parameters) == 1 + len(entry.needs)
    assert entry.weights is None or entry.weights in Weights.__dataclass_fields__
    assert issubclass(metric, ItemMetric) or entry.level == "set"


def test_what_is_missing_is_named_with_where_to_get_it(data, tmp_path):
    items = alignment_items(data / "cc3m", "validation")
    replies = perfect(items, tmp_path)
    measured = measured_of(items, replies, Weights(clip=tmp_path / "clip.pt", inception=tmp_path / "inception.pth"))
    assert set(measured.not_computed) == {"CLIP-I", "CLIP-T", "FID", "KID", "Inception Score"}
    write_report(tmp_path, "Pairs", replies.settings, measured)
    page = (tmp_path / "results.md").read_text()
    assert "- FID, KID, Inception Score: Inception v3: there is no file" in page and "https://" in page
    assert "| seed | `0` |" in page


def test_a_figure_that_is_not_finite_is_not_computed_and_the_report_is_written(data, tmp_path):
    items = alignment_items(data / "cc3m", "validation")
    measured = Measurements(items, perfect(items, tmp_path), Weights())
    (task,) = measured.tasks.values()
    nan, infinite = float("nan"), float("inf")
    task.figures |= {
        "good": Interval(0.5, 0.25, 0.75),
        "nan": nan,
        "open": Interval(0.5, -infinite, 0.75),
        "fid": infinite,
    }
    bounds = {"floor": {"frame": 0.0, "hero": nan}, "ceiling": {"frame": 1.0, "hero": 1.0}}
    write_report(tmp_path, "Pairs", {}, measured, {task.name: bounds})
    record = json.loads((tmp_path / "results.json").read_text())
    assert record["tasks"][task.name]["figures"] == {"good": {"estimate": 0.5, "low": 0.25, "high": 0.75}}
    assert record["bounds"] == {task.name: {"floor": {"frame": 0.0}, "ceiling": {"frame": 1.0}}}
    assert record["not_computed"] == {
        "nan (caption to picture)": "it came out as no finite number: estimate nan",
        "open (caption to picture)": "it came out as no finite number: low -inf",
        "fid (caption to picture)": "it came out as no finite number: estimate inf",
        "hero (bounds, caption to picture)": "it came out as no finite number: floor nan",
    }
    page = (tmp_path / "results.md").read_text()
    assert "- open (caption to picture): it came out as no finite number: low -inf" in page
    assert "| frame | 0.000 | 1.000 |" in page and "| hero |" not in page


def test_a_missing_reply_is_told(data, tmp_path):
    items = alignment_items(data / "cc3m", "validation")
    replies = perfect(items[:2], tmp_path)
    with pytest.raises(FileNotFoundError, match="no reply to item 000002"):
        Measurements(items, replies, Weights())


def test_the_judge_reads_only_data_of_storyworld(tmp_path):
    with pytest.raises(FileNotFoundError, match="export_storyworld"):
        read_truth(tmp_path, "validation")


@pytest.mark.parametrize(
    "change", [{"side": "up"}, {"place": "moon"}, {"side": "middle"}, {"hero": {"kind": ["cat"], "colour": "red"}}]
)
def test_a_truth_that_is_no_scene_is_named(tmp_path, change):
    cat, dog = ({"kind": kind, "colour": "red"} for kind in ("cat", "dog"))
    scene = {"hero": cat, "side": "left", "place": "city", "time": "day", "companion": dog, "decor": 0}
    (tmp_path / "train_truth.json").write_text(json.dumps({"a.png": scene}))
    assert read_truth(tmp_path, "train")[str(tmp_path / "a.png")].companion.kind == "dog"
    (tmp_path / "train_truth.json").write_text(json.dumps({"a.png": scene | change}))
    with pytest.raises(ValueError, match=r'train_truth\.json: "a\.png" is no scene of StoryWorld'):
        read_truth(tmp_path, "train")


def test_a_page_shows_figures_of_tasks_side_by_side():
    figures = {"clip_i": {"estimate": 0.5, "low": 0.25, "high": 0.75}, "fid": {"estimate": 12.0}}
    record = {
        "title": "Stories",
        "settings": {"model": {"name": "m", "revision": "sha256:0"}, "unet": None},
        "tasks": {
            "a": {"items": 2, "pictures": 2, "figures": figures},
            "b": {"items": 3, "pictures": 1, "figures": {"fid": {"estimate": 9.0}}},
        },
        "passed_over": {},
        "bounds": {},
        "not_computed": {},
        "notes": [],
    }
    lines = markdown(record).splitlines()
    assert "| clip_i | 0.500 [0.250, 0.750] |  |" in lines and "| fid | 12.000 | 9.000 |" in lines
    assert "| model: revision | `sha256:0` |" in lines and not any("unet" in line for line in lines)


def test_a_setting_of_several_lines_is_a_row_of_the_page():
    record = {
        "title": "Reading",
        "settings": {"wording": "{}\nReply with yes|no.", "seed": 0},
        "tasks": {},
        "bounds": {},
        "passed_over": {},
        "not_computed": {},
        "notes": [],
    }
    rows = markdown(record).partition("## Settings\n\n")[2].splitlines()
    assert rows[2:] == [r"| wording | `{}\nReply with yes\|no.` |", "| seed | `0` |"]


def test_items_that_were_passed_over_are_in_the_report_and_in_no_figure(data, tmp_path):
    items = alignment_items(data / "cc3m", "validation")
    replies = perfect(items[1:], tmp_path)
    replies.refuse(items[0].id, "too long")
    measured = Measurements(items, replies, Weights())
    (task,) = measured.tasks.values()
    assert len(task.items) == len(items) - 1
    write_report(tmp_path, "Pairs", {}, measured)
    assert json.loads((tmp_path / "results.json").read_text())["passed_over"] == {items[0].id: "too long"}
    page = (tmp_path / "results.md").read_text()
    assert f"1 of {len(items)} items could not be asked" in page and f"- {items[0].id}: too long" in page
    for item in items[1:]:
        (tmp_path / f"replies/{item.id}.json").unlink()
        replies.refuse(item.id, "too long")
    with pytest.raises(ValueError, match=f"none of the {len(items)} items could be asked; {items[0].id}: too long"):
        Measurements(items, replies, Weights())


def test_a_broken_record_is_named(data, tmp_path):
    items = alignment_items(data / "cc3m", "validation")
    replies = perfect(items, tmp_path)
    for content, told in (
        (b"{", "not JSON"),
        (b"[]", "expected an object"),
        (b'{"reply": [3]}', "expected an object with image"),
    ):
        (tmp_path / f"replies/{items[0].id}.json").write_bytes(content)
        with pytest.raises(ValueError, match=rf"{items[0].id}\.json.*{told}"):
            Measurements(items, replies, Weights())
