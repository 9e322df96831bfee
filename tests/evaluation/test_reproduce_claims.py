"""The parts of reproduce_claims.py, and a run of the whole in two steps of everything."""

import json
import pickle
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from minigpt5 import MiniGPT5Pipeline
from minigpt5.data.readers import read_chat
from minigpt5.data.splits import choose_split
from minigpt5.evaluation.claims.divter import write_divter_chats
from minigpt5.evaluation.claims.jobs import Job, run_jobs
from minigpt5.evaluation.claims.paper import TURN, check_claims, vokens_system
from minigpt5.evaluation.claims.plan import FEW, TRAININGS, Counts, Evaluation, SystemConfig, evaluations
from minigpt5.evaluation.claims.report import Heading, Paragraph, Plot, Table, html, markdown
from minigpt5.evaluation.claims.rows import FIGURES, Rows, frechet_distance, measure
from minigpt5.evaluation.claims.runner import (
    ClaimsRun,
    Timed,
    export_captions,
    is_measured,
    system_record,
    train_in_process,
    write_base,
)
from minigpt5.evaluation.claims.verdicts import Claim, Statement, counts, flat, more, no_less
from minigpt5.evaluation.items import dialogue_items, story_items
from minigpt5.evaluation.replies import ReplyFolder
from minigpt5.evaluation.storyworld import read_truth
from minigpt5.metrics import FrechetInceptionDistance, intervals
from minigpt5.metrics.intervals import Interval
from minigpt5.storyworld.export import export_mmdialog
from minigpt5.storyworld.judge import load_judge
from minigpt5.utils.files import write_text
from minigpt5.utils.images import open_image
from minigpt5.utils.programs import ProgramError, read_config

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("statement", "verdict"),
    [
        (more("", Interval(0.2, 0.1, 0.3)), "PASS"),
        (more("", Interval(-0.2, -0.3, -0.1)), "FAIL"),
        (more("", Interval(0.1, -0.1, 0.3)), "UNDECIDED"),
        (no_less("", Interval(-0.01, -0.04, 0.02), 0.05), "PASS"),
        (no_less("", Interval(-0.1, -0.2, -0.06), 0.05), "FAIL"),
        (no_less("", Interval(-0.01, -0.06, 0.02), 0.05), "UNDECIDED"),
        (flat("", Interval(0.01, -0.04, 0.04), 0.05), "PASS"),
        (flat("", Interval(0.1, 0.06, 0.2), 0.05), "FAIL"),
        (flat("", Interval(0.04, 0.0, 0.08), 0.05), "UNDECIDED"),
    ],
)
def test_verdict_of_a_statement(statement, verdict):
    assert statement.verdict == verdict


def test_verdict_of_a_claim():
    passed, failed, open_ = (Statement("", Interval(0, 0, 0), verdict) for verdict in ("PASS", "FAIL", "UNDECIDED"))
    claims = [
        Claim(1, "", (passed, passed)),
        Claim(2, "", (passed, open_)),
        Claim(3, "", (passed, open_, failed)),
    ]
    assert [claim.verdict for claim in claims] == ["PASS", "UNDECIDED", "FAIL"]
    assert counts(claims) == "1 PASS, 1 FAIL, 1 UNDECIDED"


def test_frechet_distance_is_that_of_torchmetrics():
    class Means(nn.Module):
        """Mean and contrast of each channel."""

        num_features = 6

        def forward(self, pixels):
            pixels = pixels.double() / 255
            return torch.cat([pixels.mean((2, 3)), pixels.std((2, 3))], dim=1)

    rng = np.random.default_rng(0)
    sets = [rng.integers(low, high, (40, 8, 8, 3)).astype(np.uint8) for low, high in ((0, 255), (60, 200))]
    metric = FrechetInceptionDistance(feature=Means())
    for pictures, real in zip(sets, (True, False), strict=True):
        metric.update([Image.fromarray(pixels) for pixels in pictures], real=real)
    one, other = (Means()(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy() for pixels in sets)
    assert frechet_distance(one, other) == pytest.approx(metric.compute()["fid"].item(), abs=1e-6)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)


def test_rows_come_back_from_json_and_differences_are_signed_by_what_is_better():
    rng = np.random.default_rng(0)
    near, far = (rng.normal(size=(30, 2, 4)) + np.array([0, 0, shift, shift]) for shift in (0.1, 2))
    right, wrong = np.ones((30, 2, 1)), np.zeros((30, 2, 1))
    right[0, 0] = np.nan
    good = Rows.read(json.loads(json.dumps(Rows({"features": near, "frame": right}).plain())))
    bad = Rows({"features": far, "frame": wrong})
    assert good.counts == (30, 60)
    assert "frame" in good and "similarity" not in good
    assert good.interval("frame").estimate == 1
    assert good.minus(bad, "frame").low == 1
    assert good.minus(bad, "frechet").low > 0 > bad.minus(good, "frechet").high


def test_true_replies_get_full_marks_and_missing_pictures_none(data, tmp_path):
    judge = load_judge()
    items, truth = (
        story_items(data / "vist", "validation", tasks=["next step"]),
        read_truth(data / "vist", "validation"),
    )
    folder = ReplyFolder(tmp_path / "true")
    folder.claim({})
    for item in items:
        folder.write(item.id, [item.text, open_image(item.picture)])
    rows = measure(items, folder, truth, judge)
    assert rows.counts == (3, 12)
    for figure in ("similarity", "attributes", "frame", "hero", "bleu_1", "rouge_l", "text_accuracy"):
        assert rows.interval(figure).estimate == pytest.approx(1), figure
    assert rows.interval("s_bert").estimate == pytest.approx(1, abs=1e-5)
    assert rows.interval("frechet").estimate == pytest.approx(0, abs=1e-4)

    silent = ReplyFolder(tmp_path / "silent")
    silent.claim({})
    for item in items:
        silent.write(item.id, [item.text])
    assert measure(items, silent, truth, judge).interval("similarity").estimate == 0


def test_talks_are_measured_by_relevance_and_by_where_pictures_come(data, tmp_path):
    items, truth = dialogue_items(data / "mmdialog", "validation"), read_truth(data / "mmdialog", "validation")
    figures = {}
    for name, paints in (("true", True), ("silent", False)):
        folder = ReplyFolder(tmp_path / name)
        folder.claim({})
        for item in items:
            shown = [open_image(item.picture)] if item.picture and paints else []
            folder.write(item.id, [item.text, *shown])
        rows = measure(items, folder, truth, load_judge())
        figures[name] = {figure: rows.interval(figure).estimate for figure in ("mm_relevance", "picture_f1")}
    assert figures["true"] == pytest.approx({"mm_relevance": 1, "picture_f1": 1}, abs=1e-4)
    assert figures["silent"]["picture_f1"] == 0
    assert figures["silent"]["mm_relevance"] < 0.95


def test_names_of_vokens():
    assert [vokens_system(count) for count in (1, 2, 8)] == ["1 voken", "2 vokens", "full alignment"]


def test_divter_learns_descriptions_in_the_place_of_pictures(tmp_path):
    for split in ("train", "validation"):
        export_mmdialog(tmp_path / "talks", split, 3)
    write_divter_chats(tmp_path / "talks", tmp_path / "chat", count=2)
    chats = read_chat(tmp_path / "chat", "train")
    assert len(chats) == 8
    for chat in chats:
        *context, reply = chat["messages"]
        assert reply["role"] == "assistant"
        (said,) = reply["content"]
        wanted = "Here" in said["text"]
        assert ("[DST] A" in said["text"]) == wanted
        shown = [part["image"] for message in context for part in message["content"] if part["type"] == "image"]
        assert len(shown) == (len(context) > 1 or context[0]["content"][0]["text"] == "What do you see?")


def test_report_as_markdown_and_as_one_page(tmp_path):
    file = tmp_path / "images" / "a.png"
    file.parent.mkdir()
    Image.new("RGB", (4, 4), "red").save(file)
    blocks = [
        Heading("One"),
        Paragraph("**Two** & `three`"),
        Table(["", "verdict"], [["a < b", "FAIL"]]),
        Plot(file, "Red"),
    ]
    text, page = markdown("Title", blocks, tmp_path), html("Title", blocks)
    assert text == (
        "# Title\n\n## One\n\n**Two** & `three`\n\n|  | verdict |\n| --- | --- |\n| a < b | FAIL |\n\n"
        "![Red](images/a.png)\n"
    )
    assert "<b>Two</b> &amp; <code>three</code>" in page
    assert '<td>a &lt; b</td><td><span class="FAIL">FAIL</span></td>' in page
    assert "data:image/png;base64," in page and "images/a.png" not in page


@pytest.fixture
def run(tmp_path):
    folders = {name: Path("/models") / name for name in ("base", "aligned", "shipped", "judge")}
    folders |= {"work": tmp_path, "data": tmp_path / "data"}
    return ClaimsRun(folders, ROOT / "training", ROOT / "configs/storyworld-claims", FEW, quick=True)


def test_jobs_wait_for_what_they_read(run):
    jobs = {job.name: job for job in run.jobs()}
    assert next(iter(jobs)) == "data" and jobs["data"].needs == ()
    assert jobs["divter-data"].needs == ("data",) and jobs["base-8"].needs == ()
    assert jobs["align-no-ldm"].needs == ("base-8", "captions")
    assert jobs["interleaved-full"].needs == ("data",)
    assert jobs["divter"].needs == ("base-8", "divter-data")
    assert jobs["two-stage--stories"].needs == ("data", "finetuned-diffusion", "text")
    assert jobs["minigpt-5--prefix-tuning--stories"].needs == ("data", "interleaved-prefix")
    seen = set()
    for name, job in jobs.items():
        assert set(job.needs) <= seen
        seen.add(name)


def test_every_claim_finds_its_systems_and_tasks_in_the_plan(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 2)
    asked = {(name.rpartition(":")[0], task) for name, one in evaluations(Counts()).items() for task in one.tasks}
    read = set()

    class Noted(dict):
        def __init__(self, system=None):
            self.system = system

        def __missing__(self, name):
            if self.system is None:
                return Noted(name)
            read.add((self.system, name))
            rng, parts = np.random.default_rng(0), {figure.part for figure in FIGURES.values()}
            return Rows({part: rng.normal(size=(4, 1, 2 if part == "decision" else 4)) for part in parts})

    claims = check_claims(Noted())
    assert all(claim.statements for claim in claims) and len(claims) == 9
    assert read <= asked


def test_what_another_model_was_measured_by_is_not_taken_for_this_one_s(tmp_path):
    """A model of other weights, or another adapter, is asked anew."""
    model, file = tmp_path / "model", tmp_path / "rows.json"
    model.mkdir()
    (model / "config.json").write_text("{}")
    asked = Evaluation(SystemConfig(str(model)), "data", {TURN: 4})
    assert not is_measured(file, asked)
    file.write_text(json.dumps({"tasks": {TURN: 4}, "system": system_record(asked.system), "rows": {}}))
    assert is_measured(file, asked) and not is_measured(file, replace(asked, tasks={TURN: 5}))
    assert not is_measured(file, replace(asked, system=replace(asked.system, adapter=str(model))))
    (model / "config.json").write_text('{"trained": "more"}')
    assert not is_measured(file, asked)


@pytest.mark.parametrize("name", TRAININGS)
def test_a_training_s_settings_are_those_of_its_program(name, run, monkeypatch):
    """Each option is known and in its range: the program would not end after an hour with a line."""
    command = run.command(name, TRAININGS[name])
    main = runpy.run_path(command[1])["main"]
    settings = read_config(main.__annotations__["config"], "", command[2:])
    assert settings.steps == 2 and settings.out == run.work / name


def test_a_training_that_fails_ends_the_run_with_its_last_line(tmp_path):
    command = [sys.executable, "-c", "print('no room'); raise SystemExit(2)"]
    with pytest.raises(ProgramError, match=r"exit code 2.*no room"):
        train_in_process(command, tmp_path / "logs/x.log")


def test_jobs_are_done_once_and_in_order(tmp_path):
    done = []

    def job(name, *needs):
        return Job(name, lambda: done.append(name), lambda: name in done, needs)

    jobs = [job("a"), job("b", "a"), job("c", "a", "b")]
    run_jobs(jobs)
    run_jobs(jobs)
    assert done == ["a", "b", "c"]


def test_work_that_goes_to_another_process_is_timed(tmp_path):
    work = Timed(write_text, (tmp_path / "written", "done"), tmp_path / "jobs/a.json")
    pickle.loads(pickle.dumps(work))()
    assert (tmp_path / "written").read_text() == "done" and "seconds" in work.note.read_text()


def test_what_the_user_can_put_right_is_told_whichever_process_it_is_raised_in(tmp_path):
    lost = Timed(export_captions, (tmp_path / "notes/below", {"train": 1}), tmp_path / "jobs/a.json")
    (tmp_path / "notes").touch()
    with pytest.raises(ProgramError, match="notes"):
        lost()
    with pytest.raises(ProgramError, match="layout"):
        Timed(choose_split, (tmp_path, "none", "train"), lost.note)()
    with pytest.raises(ZeroDivisionError):
        Timed(divmod, (1, 0), lost.note)()
    assert not lost.note.exists()


def test_an_adapter_is_the_finished_model_s(run, tmp_path):
    run.folders["adapter"] = Path("/models/adapter")
    opened = {name: run._opened(one).system for name, one in run.evaluations.items()}
    with_it = {system.model for system in opened.values() if system.adapter == "/models/adapter"}
    assert with_it == {"/models/shipped"}
    assert all(system.adapter for system in opened.values() if system.model == "/models/shipped")
    assert {system.adapter for system in opened.values() if system.model == "/models/aligned"} == {
        str(tmp_path / "interleaved-prefix/adapter")
    }


def test_bases_are_written_whole(tmp_path, monkeypatch):
    def broken(self, folder, **_):
        (Path(folder) / "model_index.json").write_text("{")
        raise OSError("disk full")

    monkeypatch.setattr(MiniGPT5Pipeline, "save_pretrained", broken)
    with pytest.raises(OSError, match="disk full"):
        write_base("storyworld-mini", 2, tmp_path / "base-2")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_quick_run_and_that_nothing_is_done_twice(tmp_path):
    command = [sys.executable, str(ROOT / "evaluation" / "reproduce_claims.py"), "--quick"]
    command += ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "report")]
    (tmp_path / "report").mkdir()
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "interleaved-full: done" in first
    report = (tmp_path / "report" / "claims.md").read_text()
    for number in range(1, 7):
        assert f"## Table {number}" in report
    assert len(list((tmp_path / "report" / "images" / "claims").glob("*.png"))) == 4
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "started" not in again
    assert (tmp_path / "report" / "claims.md").read_text() == report
