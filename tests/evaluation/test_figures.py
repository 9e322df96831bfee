"""Figures of replies."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from minigpt5.evaluation import figures
from minigpt5.evaluation.figures import Measurements, Weights, grouped_intervals
from minigpt5.evaluation.items import alignment_items, dialogue_items, story_items
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.evaluation.report import markdown, write_report
from minigpt5.evaluation.storyworld import JudgedMeasurements, read_truth
from minigpt5.metrics import FrechetInceptionDistance, InceptionScore, KernelInceptionDistance
from minigpt5.metrics.intervals import bootstrap_interval
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
def metrics(monkeypatch):
    """Small networks in the place of CLIP and Inception."""
    monkeypatch.setattr(figures, "load_clip_encoder", lambda _: Encoder())
    for metric in (FrechetInceptionDistance, KernelInceptionDistance, InceptionScore):
        name = metric.__name__
        monkeypatch.setattr(figures, name, lambda _, metric=metric: metric(feature=Squeezed()))


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


def test_true_replies_have_the_best_figures(data, tmp_path, metrics):
    items = story_items(data / "vist", "validation", tasks=("every step", "next step"))
    measured = Measurements(items, perfect(items, tmp_path), Weights())
    steps, told = measured.tasks["every step"], measured.tasks["next step"]
    measured.pictures([steps, told])
    measured.told_pictures([steps])
    measured.texts([told])
    judged = JudgedMeasurements(measured, read_truth(data / "vist", "validation"))
    judged.pictures([steps, told])
    judged.heroes(steps)
    judged.texts(told)
    judged.coherence(told)
    assert measured.not_computed == {}
    for task in (steps, told):
        assert value(task, "clip_i") == pytest.approx(1) and value(task, "fid") == pytest.approx(0, abs=1e-3)
        assert value(task, "frame_accuracy") == 1 and value(task, "character_f1") == 1
        assert judged.bounds[task.name]["ceiling"]["frame_accuracy"] == 1
    assert value(steps, "hero_identity") == 1 and "clip_t" in steps.figures and "clip_t" not in told.figures
    assert value(told, "bleu_1") == pytest.approx(1) and value(told, "rouge_l") == pytest.approx(1)
    assert value(told, "text_accuracy") == 1 and value(told, "text_agrees") == 1
    assert steps.figures["inception_score"] >= 1
    assert any("next step: " in note for note in measured.notes) is (len(told.items) < 10)


def test_turns_are_compared_with_the_true_ones(data, tmp_path, metrics):
    items = dialogue_items(data / "mmdialog", "validation")
    measured = Measurements(items, perfect(items, tmp_path), Weights())
    (task,) = measured.tasks.values()
    measured.turns(task)
    measured.published_bleu(task)
    assert value(task, "mm_relevance_per_turn") == pytest.approx(1)
    assert value(task, "mm_relevance_mmdialog") == pytest.approx(100)
    assert value(task, "picture_f1") == 1 and value(task, "character_bleu_2_as_published") == pytest.approx(1)
    assert "BLEU of characters" in measured.notes[0]


def test_a_reply_without_a_picture_counts_as_none(data, tmp_path, metrics):
    items = alignment_items(data / "cc3m", "validation")
    replies = perfect(items[:3], tmp_path)
    replies.write(items[3].id, [])
    measured = Measurements(items, replies, Weights())
    (task,) = measured.tasks.values()
    measured.pictures([task])
    measured.told_pictures([task])
    judged = JudgedMeasurements(measured, read_truth(data / "cc3m", "validation"))
    judged.pictures([task])
    write_report(tmp_path, "Pairs", replies.settings, measured, judged.bounds)
    page = (tmp_path / "results.md").read_text()
    assert (
        "| items | 4 |" in page
        and "| pictures | 3 |" in page
        and "InceptionScore needs 10 pictures, there are 3" in page
    )


def test_what_is_missing_is_named_with_where_to_get_it(data, tmp_path):
    items = alignment_items(data / "cc3m", "validation")
    replies = perfect(items, tmp_path)
    measured = Measurements(items, replies, Weights(clip=tmp_path / "clip.pt", inception=tmp_path / "inception.pth"))
    measured.pictures(list(measured.tasks.values()))
    measured.told_pictures(list(measured.tasks.values()))
    assert set(measured.not_computed) == {"CLIP-I", "CLIP-T", "FID", "KID", "Inception Score"}
    write_report(tmp_path, "Pairs", replies.settings, measured)
    page = (tmp_path / "results.md").read_text()
    assert "- FID, KID, Inception Score: Inception v3: there is no file" in page and "https://" in page
    assert "| seed | `0` |" in page


def test_intervals_draw_whole_groups():
    mean = lambda rows: {"mean": float(rows.mean())}  # noqa: E731
    stories = np.repeat([0.0, 1.0, 1.0, 0.0, 1.0, 1.0], 5)[:, None]
    groups = np.repeat(np.arange(6), 5)
    grouped = grouped_intervals(stories, groups, mean)["mean"]
    assert grouped == pytest.approx(bootstrap_interval([0, 1, 1, 0, 1, 1]))
    assert grouped_intervals(stories, [0] * 30, mean) == {"mean": pytest.approx(2 / 3)}
    alone = grouped_intervals(stories, range(30), mean)["mean"]
    assert alone.high - alone.low < grouped.high - grouped.low


def test_a_missing_reply_is_told(data, tmp_path):
    items = alignment_items(data / "cc3m", "validation")
    replies = perfect(items[:2], tmp_path)
    with pytest.raises(FileNotFoundError, match="no reply to item 000002"):
        Measurements(items, replies, Weights())


def test_the_judge_reads_only_data_of_storyworld(tmp_path):
    with pytest.raises(FileNotFoundError, match="export_storyworld"):
        read_truth(tmp_path, "validation")


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
