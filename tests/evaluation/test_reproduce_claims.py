"""The parts of reproduce_claims.py, and a run of the whole in a few steps of everything."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from minigpt5.evaluation.baselines import ZeroShotDiffusion
from minigpt5.evaluation.claims import plan, runner
from minigpt5.evaluation.claims.asking import ask, frames_right, right_above_chance
from minigpt5.evaluation.claims.flatness import budget, is_flat
from minigpt5.evaluation.claims.plan import (
    ALIGN,
    CLAIMS,
    FEW,
    FULL,
    SYSTEMS,
    Amounts,
    Part,
    Statement,
    count_of,
    tasks_of,
)
from minigpt5.evaluation.claims.rows import FIGURES, AttributeEncoder, frechet_distance, from_plain, measure, plain
from minigpt5.evaluation.claims.runner import ClaimsRun
from minigpt5.evaluation.claims.trainings import Curve, train_until_flat
from minigpt5.evaluation.claims.verdicts import (
    Decided,
    DecidedClaim,
    decide,
    gates,
    interval_of,
    sums_by_seed,
    verdict_of,
)
from minigpt5.evaluation.claims.world import CAPTIONS, NEXT, TURN, final, picture, questions
from minigpt5.metrics import FrechetInceptionDistance
from minigpt5.metrics.intervals import Interval
from minigpt5.output import MiniGPT5PipelineOutput
from minigpt5.storyworld.judge import ATTRIBUTES, Judge, Verdict, load_judge
from minigpt5.utils.files import write_json
from minigpt5.utils.programs import ProgramError

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "evaluation" / "reproduce_claims.py"


@pytest.mark.parametrize(
    ("kind", "interval", "margin", "verdict"),
    [
        ("more", (0.2, 0.1, 0.3), 0, "PASS"),
        ("more", (-0.2, -0.3, -0.1), 0, "FAIL"),
        ("more", (0.1, -0.1, 0.3), 0, "UNDECIDED"),
        ("no less", (-0.01, -0.04, 0.02), 0.05, "PASS"),
        ("no less", (-0.1, -0.2, -0.06), 0.05, "FAIL"),
        ("no less", (-0.01, -0.06, 0.02), 0.05, "UNDECIDED"),
        ("as", (0.01, -0.04, 0.04), 0.05, "PASS"),
        ("as", (0.1, 0.06, 0.2), 0.05, "FAIL"),
        ("as", (0.04, 0.0, 0.08), 0.05, "UNDECIDED"),
    ],
)
def test_verdict_of_a_statement(kind, interval, margin, verdict):
    assert verdict_of(kind, Interval(*interval), margin) == verdict


def test_verdict_of_a_claim_and_why():
    statement = Statement("a above b", "frame", ())
    passed, failed, open_, unmeasured = (
        Decided(statement, Interval(*bounds) if bounds else None)
        for bounds in ((0.3, 0.2, 0.4), (-0.3, -0.4, -0.2), (0.1, -0.1, 0.3), ())
    )
    level = Decided(statement, Interval(0.0, 0.0, 0.0), by_seed=(0.0, 0.0))
    early = [replace(one, all_seeds=False) for one in (passed, passed, failed, open_, unmeasured)]
    claims = [
        DecidedClaim("1", CLAIMS["1"], given)
        for given in (
            (passed, passed),
            (passed, open_),
            (passed, replace(open_, by_seed=(0.0, 0.2))),
            (passed, level),
            (passed, open_, failed),
            (unmeasured,),
            (passed, unmeasured),
            early,
        )
    ]
    assert [claim.verdict for claim in claims] == ["PASS", *["UNDECIDED"] * 3, "FAIL", *["UNDECIDED"] * 3]
    assert [claim.why for claim in claims] == [
        "All 2 statements hold; the closest is “a above b: 0.300 [0.200, 0.400]”.",
        "1 of 2 statements hold, but “a above b: 0.100 [-0.100, 0.300]” cannot be told from chance.",
        "1 of 2 statements hold, but "
        "“a above b: 0.100 [-0.100, 0.300], by seed 0.000, 0.200” cannot be told from chance.",
        "1 of 2 statements hold, but "
        "“a above b: 0.000 [0.000, 0.000], by seed 0.000, 0.000” shows no difference at all.",
        "1 of 3 statements hold, but “a above b: -0.300 [-0.400, -0.200]” is contradicted.",
        "Not measured yet.",
        "1 of 2 statements hold; the others are not measured yet.",
        "Not all seeds are measured; so far 2 of 5 statements hold, 1 are contradicted.",
    ]


def made(frame, seeds=3, **more):
    """Rows of seeds whose frames are right in these shares of 100 items."""
    right = (np.arange(100) < 100 * frame).astype(float).reshape(100, 1, 1)
    return [{"frame": right, **more} for _ in range(seeds)]


def test_a_statement_is_a_signed_sum_over_seeds_and_items():
    measured = {
        "a": [{CAPTIONS: rows} for rows in made(0.9)],
        "b": [{CAPTIONS: rows} for rows in made(0.5)],
        "c": [{CAPTIONS: rows} for rows in made(0.5, seeds=1)],
    }
    found = interval_of("frame", ((1, "a", CAPTIONS), (-1, "b", CAPTIONS)), measured, draws=200)
    assert found.estimate == pytest.approx(0.4) and 0.2 < found.low < found.high < 0.6
    alone = interval_of("frame", ((1, "a", CAPTIONS), (-1, "c", CAPTIONS)), measured, draws=200)
    assert alone.estimate == pytest.approx(0.4) and 0.2 < alone.low < alone.high < 0.6
    assert interval_of("frame", ((1, "a", CAPTIONS), (-1, "d", CAPTIONS)), measured) is None
    assert sums_by_seed("frame", ((1, "a", CAPTIONS), (-1, "b", CAPTIONS)), measured) == pytest.approx([0.4] * 3)
    assert sums_by_seed("frame", ((1, "a", CAPTIONS), (-1, "d", CAPTIONS)), measured) == ()
    assert interval_of("frame", ((1, "a", CAPTIONS), (-1, "b", TURN)), measured) is None
    assert interval_of("rouge_l", ((1, "a", CAPTIONS),), measured) is None


def test_what_is_better_where_less_is_better_is_above_0():
    rng = np.random.default_rng(0)
    near, far = (rng.normal(size=(40, 1, 4)) + np.array([0, 0, shift, shift]) for shift in (0.1, 2))
    tasks = [plan.guided(scale, clamped) for scale in (10, 30) for clamped in (False, True)]
    rows = {task: {"features": near if "10" in task else far} for task in tasks}
    eighth = next(claim for claim in decide({plan.SD: [rows] * 3}, 3, draws=40) if claim.name == "8")
    quality = [one for one in eighth.statements if one.statement.figure == "frechet" and one.interval]
    assert len(quality) == 2 and {one.verdict for one in quality} == {"PASS"}
    assert all(one.interval.low > 0 for one in quality)
    early = [one for claim in decide({plan.SD: [rows] * 2}, 3, draws=40) for one in claim.statements if one.interval]
    assert {one.verdict for one in early} == {"UNDECIDED"} and "PASS" in {one.so_far for one in early}


def test_a_bench_resolves_where_the_good_are_right_and_the_shuffled_are_not():
    def measured(frame, shuffled):
        rows = made(frame, shuffled=np.full((100, 1, 1), shuffled))
        return {name: [{task: one} for one in rows] for name, task in plan.RESOLVES}

    assert [gate.open for gate in gates(measured(0.95, 0.0), 20)] == [True, True]
    assert [gate.open for gate in gates(measured(0.85, 0.0), 20)] == [False, False]
    assert [gate.open for gate in gates(measured(0.95, 0.2), 20)] == [False, False]
    assert [gate.open for gate in gates({}, 20)] == [False, False]


def test_every_statement_finds_its_systems_and_tasks_in_the_plan():
    for amounts in (Amounts(), FEW):
        asked = {(name, task) for name in SYSTEMS for task in tasks_of(name, amounts)}
        for claim in CLAIMS.values():
            for statement in claim.statements:
                assert statement.figure in FIGURES
                assert {(system, task) for _, system, task in statement.terms} <= asked
                assert sum(weight for weight, _, _ in statement.terms) == 0
        assert set(plan.RESOLVES) <= asked
    assert len(Amounts().seeds) >= 3
    assert all(count_of(task, Amounts()) >= 100 for name in SYSTEMS for task in tasks_of(name, Amounts()))


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


@pytest.fixture(scope="module")
def judge():
    """The judge that ships, which reads 64×64: good enough to see what reaches it."""
    return load_judge()


def value(rows, figure):
    return FIGURES[figure].of_runs(rows[FIGURES[figure].part][None])


def test_true_replies_get_full_marks_and_missing_pictures_none(judge, monkeypatch):
    asked = questions(NEXT, "test", 6)
    scenes = {id(picture(question.scene)): question.scene for question in asked}

    class Knowing(Judge):
        """Reads off a picture what it was drawn of."""

        def read(self, pictures):
            truths = [scenes[id(one)] for one in pictures]
            return [judge._verdict([list(o).index(w) for o, w in _named(scene)]) for scene in truths]

    knowing = Knowing(channels=judge.config["channels"]).eval()
    true = [(question.text, picture(question.scene)) for question in asked]
    rows = from_plain(json.loads(json.dumps(plain(measure(asked, true, knowing)))))
    assert rows["frame"].shape == (6, 3, 1)
    for figure in ("frame", "similarity", "hero", "kept", "rouge_l", "text_accuracy"):
        assert value(rows, figure) == pytest.approx(1, abs=1e-4), figure
    assert value(rows, "frechet") == pytest.approx(0, abs=1e-3)
    assert value(rows, "shuffled") < 0.5
    silent = measure(asked, [(text, None) for text, _ in true], knowing)
    assert value(silent, "frame") == value(silent, "similarity") == 0
    mute = measure(asked, [("", image) for _, image in true], knowing)
    assert value(mute, "rouge_l") == value(mute, "text_accuracy") == 0 and value(mute, "frame") == 1
    with pytest.raises(ValueError, match="have 1 replies"):
        measure(asked, true[:1], knowing)
    with pytest.raises(ValueError, match="equally large"):
        measure(asked[:-1], true[:-1], knowing)


def _named(scene):
    """Options of each of the judge's questions and the right one."""
    from minigpt5.storyworld.judge import QUESTIONS, answers

    return [(options, options[i]) for options, i in zip(QUESTIONS.values(), answers(scene), strict=True)]


def test_talks_are_measured_by_both_relevances_and_by_where_pictures_come(judge):
    asked = questions(TURN, "test", 4)
    true = [(question.text, question.scene and picture(question.scene)) for question in asked]
    figures = {}
    for name, replies in (("true", true), ("silent", [(text, None) for text, _ in true])):
        rows = measure(asked, replies, judge)
        figures[name] = {figure: value(rows, figure) for figure in ("mm_turn", "mm_mmdialog", "picture_f1")}
    assert figures["true"]["picture_f1"] == 1 and figures["silent"]["picture_f1"] == 0
    for figure in ("mm_turn", "mm_mmdialog"):
        assert figures["true"][figure] > figures["silent"][figure] > 0


def test_texts_and_pictures_lie_in_one_space_of_attributes(judge):
    encoder = AttributeEncoder(judge)
    told = encoder.encode_texts(["A red cat on the left in the city at night.", "It goes.", "A red cat in the city."])
    assert told.norm(dim=1).tolist() == pytest.approx([1, 0, 1])
    assert float(told[0] @ told[2]) == pytest.approx((3 / 5) ** 0.5)
    assert encoder.encode_pictures([Image.new("RGB", (32, 32))]).shape[1] == told.shape[1]


class Echo:
    """A pipeline that says what it is asked, and paints where it is told to."""

    def __call__(self, prompts, generator, image_mode, **options):
        self.batch, self.options = len(prompts), options
        noise = [torch.randint(256, (8, 8, 3), generator=one, dtype=torch.uint8) for one in generator]
        images = [[] if image_mode == "never" else [Image.fromarray(one.numpy())] for one in noise]
        text = [prompt[-1]["content"][-1]["text"] for prompt in prompts]
        return MiniGPT5PipelineOutput(text=text, images=images, segments=[])


def test_systems_are_asked_in_batches_with_the_noise_of_the_item():
    asked, echo = questions(CAPTIONS, "test", 60), Echo()
    replies = ask(echo, asked, seed=1, guidance_scale=3.0)
    assert echo.batch == 10 and echo.options == {"max_images": 1, "max_new_tokens": 40, "guidance_scale": 3.0}
    assert all(text.endswith(question.sentence) for (text, _), question in zip(replies, asked, strict=True))
    alone = ask(echo, asked, seed=1)[55][1], ask(echo, asked, seed=2)[55][1]
    assert replies[55][1].tobytes() == alone[0].tobytes() != alone[1].tobytes()
    assert ask(echo, asked[:1], image_mode="never")[0][1] is None

    class Painter(ZeroShotDiffusion):
        def __init__(self):
            pass

        def paint(self, captions, **options):
            return [f"{caption}/{len(options['generator'])}" for caption in captions]

    assert ask(Painter(), asked[:2]) == [("", f"{question.sentence}/2") for question in asked[:2]]


def test_a_missing_picture_shows_nothing(judge):
    assert frames_right(judge, [None], [questions(CAPTIONS, "test", 1)[0].scene]) == [0.0]
    assert right_above_chance(judge, [None, None], [one.scene for one in questions(CAPTIONS, "test", 2)]) == [0.0, 0.0]


class Seer:
    """A judge that is told what it sees."""

    def read(self, scenes):
        return [Verdict(scene.slots, scene.place, scene.time) for scene in scenes]


def test_marks_are_attributes_above_chance():
    scenes = [question.scene for question in questions(CAPTIONS, "test", 40)]
    right = right_above_chance(Seer(), scenes, scenes)
    assert min(right) > 0.3
    assert right[0] == pytest.approx(
        1 - np.mean([[Seer().read(scenes)[0].compare(one)[name] for name in ATTRIBUTES] for one in scenes[1:]])
    )
    # One picture for all is right by chance.
    assert np.mean(right_above_chance(Seer(), scenes[:1] * 40, scenes)) == pytest.approx(0)


def test_jobs_wait_for_what_they_are_made_of(tmp_path):
    jobs = {job.name: job for job in ClaimsRun(tmp_path, PROGRAM, Amounts()).jobs()}
    assert jobs["painter"].needs == ("vae", "judge")
    assert jobs["full-1"].needs == ("vae", "judge", "painter", "reader", "align-1")
    assert set(jobs["two-stage-2"].needs) > {"text-2", "tuned-sd-2"}
    assert len(jobs) == 4 + 3 * len(SYSTEMS)
    seen = set()
    for name, job in jobs.items():
        assert set(job.needs) <= seen
        seen.add(name)
    with pytest.raises(ProgramError, match=r"no job full-7; there are vae, judge"):
        ClaimsRun(tmp_path, PROGRAM, Amounts()).do(["vae", "full-7"])


def test_a_folder_is_of_one_plan(tmp_path):
    ClaimsRun(tmp_path, PROGRAM, Amounts()).begin()
    ClaimsRun(tmp_path, PROGRAM, Amounts()).begin()
    with pytest.raises(ProgramError, match="begun with another plan"):
        ClaimsRun(tmp_path, PROGRAM, replace(Amounts(), talks=300)).begin()


def test_nothing_is_told_of_the_trainings_of_another_plan(tmp_path, refused):
    ClaimsRun(tmp_path, PROGRAM, replace(Amounts(), talks=300)).begin()
    for more in (("--report", "true"), ("--job", "vae")):
        told = refused("evaluation/reproduce_claims", "--work", tmp_path, "--out", tmp_path / "docs", *more)
        assert "was begun with another plan" in told
    assert not (tmp_path / "docs").exists()


def fake_program(tmp_path, body):
    file = tmp_path / "fake.py"
    lines = ["import pathlib, sys, time", "name = sys.argv[2].removeprefix('--job=')"]
    lines += [f"work = pathlib.Path({str(tmp_path)!r})"]
    lines += ["parts = name in ('vae', 'judge', 'painter', 'reader')"]
    lines += ["result = work / f'parts/{name}/model/.done' if parts else work / name / 'rows.json'"]
    lines += ["(work / 'order.txt').open('a').write(name + '\\n')"]
    file.write_text("\n".join([*lines, body]))
    return file


def test_a_run_does_everything_once_and_ends_at_what_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "SYSTEMS", {name: SYSTEMS[name] for name in (ALIGN, FULL)})
    write = "result.parent.mkdir(parents=True, exist_ok=True)\nresult.write_text('')"
    program = fake_program(tmp_path, write)
    run = ClaimsRun(tmp_path, program, Amounts())
    assert run.run()
    order = (tmp_path / "order.txt").read_text().split()
    assert sorted(order) == sorted(job.name for job in run.jobs())
    assert order.index("align-0") < order.index("full-0") and order.index("judge") < order.index("painter")
    assert run.run() and (tmp_path / "order.txt").read_text().split() == order
    (tmp_path / "full-2/rows.json").unlink()
    fake_program(tmp_path, "print('no room'); sys.exit(2)")
    with pytest.raises(ProgramError, match=r"full-2 ended with exit code 2.*no room"):
        run.run()


def test_a_job_that_ends_while_it_is_looked_at_is_done(tmp_path, monkeypatch):
    class Ending:
        """Writes its results and ends when it is asked whether it runs."""

        returncode = 0

        def __init__(self, results):
            self.results = results

        def poll(self):
            for result in self.results:
                result.parent.mkdir(parents=True, exist_ok=True)
                result.write_text("")
            return 0

    monkeypatch.setattr(runner, "SYSTEMS", {ALIGN: SYSTEMS[ALIGN]})
    run = ClaimsRun(tmp_path, tmp_path / "none.py", Amounts())
    results = {job.name: job.result for job in run.jobs()}
    monkeypatch.setattr(run, "_start", lambda names: Ending([results[name] for name in names]))
    assert run.run()


def test_a_run_ends_when_its_minutes_are_over_and_stops_what_runs(tmp_path):
    body = "import signal\nsignal.signal(signal.SIGTERM, lambda *_: (work / 'told').write_text(name) and sys.exit(0))"
    program = fake_program(tmp_path, f"{body}\n(work / 'up').touch()\ntime.sleep(600)")
    assert ClaimsRun(tmp_path, program, Amounts()).run(minutes=0.05) is False
    assert (tmp_path / "told").exists() or not (tmp_path / "up").exists()


def test_marks_of_later_steps_are_of_a_run_that_was_killed(tmp_path):
    curve = Curve(tmp_path / "curve.json")
    for step, marks in ((10, [0.1]), (20, [0.2]), (30, [0.3]), (20, [0.4])):
        curve.add(step, marks)
    assert curve.marks == {10: [0.1], 20: [0.4]} and curve.rounds == 1
    curve.grow()
    assert curve.rounds == 2 and curve.marks == {10: [0.1], 20: [0.4]}


def test_a_training_goes_on_until_it_is_flat_and_where_it_was_stopped(tmp_path):
    """Marks that climb to step 12: not flat after the first round of 6 steps, and so on to the last, of 12."""
    part, steps = Part(6, 4, 1e-2, 0.1), []

    def train(stop_at=None):
        torch.manual_seed(0)
        module = nn.Linear(1, 1)

        def losses(batch, step):
            if step == stop_at:
                raise KeyboardInterrupt
            steps.append(step)
            return {"loss": module(batch).square().mean()}

        def marks():
            return [min(steps[-1] + 1, 12) + 0.01 * item for item in range(5)]

        train_until_flat(module, lambda step: torch.ones(4, 1), losses, marks, tmp_path, replace(FEW, steps=6), part)
        return module.weight.item()

    with pytest.raises(KeyboardInterrupt):
        train(stop_at=9)
    assert Curve(tmp_path / "curve.json").rounds == 2 and max(Curve(tmp_path / "curve.json").marks) == 9
    weight = train()
    curve = Curve(tmp_path / "curve.json")
    assert steps == list(range(budget(6, curve.rounds))) and sorted(curve.marks) == list(range(1, len(steps) + 1))
    assert curve.rounds == FEW.rounds == 2 and not is_flat(curve.marks)
    assert curve.seconds >= 0
    assert train() == weight and len(steps) == max(curve.marks)


def test_time_adds_up_over_what_was_stopped(tmp_path):
    run = ClaimsRun(tmp_path, PROGRAM, FEW)
    for wall, user in ((2.0, 1.0), (3.0, 0.5)):
        run._note_time("vae", wall, user)
    assert run.seconds() == {"vae": {"wall": 5.0, "user": 1.5}}


def test_seeds_are_measured_one_after_the_other(tmp_path):
    run = ClaimsRun(tmp_path, PROGRAM, FEW)
    rows = {"rows": {CAPTIONS: plain({"frame": np.array([[[1.0]], [[np.nan]]])})}}
    for name in ("align-0", "align-1", "full-0", "gill-1"):
        write_json(tmp_path / name / "rows.json", rows)
    measured = run.measured()
    assert {name: len(runs) for name, runs in measured.items()} == {ALIGN: 2, FULL: 1}
    assert np.isnan(measured[ALIGN][1][CAPTIONS]["frame"][1, 0, 0])


@pytest.mark.slow
def test_quick_run_and_that_nothing_is_done_twice(tmp_path):
    command = [sys.executable, str(PROGRAM), "--quick"]
    command += ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "report")]
    (tmp_path / "report").mkdir()
    stopped = subprocess.run([*command, "--minutes", "0.5"], capture_output=True, text=True, check=True).stdout
    assert stopped.endswith("stopped; the same command goes on\n")
    first = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert first.count("started") == first.count("done") > 2
    report = (tmp_path / "report" / "claims.md").read_text()
    assert all(f"| {name} |" in report for name in CLAIMS)
    assert len(list((tmp_path / "report" / "images" / "claims").glob("*.png"))) >= 4
    assert "## Table 6" in (tmp_path / "report" / "paper-tables.md").read_text()
    again = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "started" not in again
    assert (tmp_path / "report" / "claims.md").read_text() == report
    assert (tmp_path / "work" / f"{FULL}-0" / "samples").exists() and final("text", 1.0) in tasks_of(FULL, FEW)
