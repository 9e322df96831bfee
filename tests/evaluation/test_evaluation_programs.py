"""The programs, as a user would run them, on the shipped miniature."""

import io
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from minigpt5 import ImageEvent, TextEvent
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.examine import sample_scenes
from minigpt5.utils.images import to_tensor

FEW = ("--num-inference-steps", "2", "--judge", "storyworld")


@pytest.fixture
def program(run_program):
    return lambda name, *arguments: run_program(f"evaluation/{name}", *arguments)


def results(out):
    return json.loads((out / "results.json").read_text())


def test_captions_are_painted_and_measured_once(data, tmp_path, program):
    first = ("--data", data / "cc3m", "--out", tmp_path, *FEW)
    program("evaluate_alignment", *first, "--count", 1)
    reply = tmp_path / "replies/000000.json"
    made = reply.stat().st_mtime_ns
    program("evaluate_alignment", *first, "--count", 2)
    assert reply.stat().st_mtime_ns == made and (tmp_path / "replies/000001.json").exists()
    (task,) = results(tmp_path)["tasks"].values()
    assert task["items"] == 2 and {"low", "high"} < task["figures"]["frame_accuracy"].keys()
    assert (tmp_path / "results.md").read_text().startswith("# Caption to picture")


def test_stories_are_told_under_every_context(data, tmp_path, program):
    program("evaluate_stories", "--data", data / "vist", "--out", tmp_path, "--count", 1, *FEW)
    tasks = results(tmp_path)["tasks"]
    assert {name: task["items"] for name, task in tasks.items()} == {
        "final, no context": 1,
        "final, text context": 1,
        "final, image context": 1,
        "final, image-text context": 1,
        "every step": 5,
        "next step": 4,
    }
    assert "hero_identity" in tasks["every step"]["figures"]
    assert {"bleu_1", "rouge_l", "s_bert", "text_agrees"} < tasks["next step"]["figures"].keys()


def test_a_baseline_without_words_has_no_figures_of_text(data, tmp_path, program, refused, capsys):
    options = ("--baseline", "diffusion", "--tasks", "every step", "next step", "--count", 1, "--prompts", "published")
    program("evaluate_stories", "--data", data / "vist", "--out", tmp_path, *options, *FEW)
    # Nothing is said of the next step that could be painted.
    assert "4 of 9 items have no caption to paint and are left out" in capsys.readouterr().out
    (task,) = results(tmp_path)["tasks"].values()
    assert task["pictures"] == 5 and "frame_accuracy" in task["figures"] and "bleu_1" not in task["figures"]
    talks = ("--data", data / "mmdialog", "--out", tmp_path / "talks", "--baseline", "diffusion")
    assert "nothing that is asked here has one" in refused("evaluation/evaluate_dialogue", *talks)


def test_pairs_are_examined_alone_and_through_vokens(tmp_path, program):
    program("evaluate_pairs", "--pairs", "{as shipped: storyworld-mini}", "--count", 4, "--out", tmp_path)
    figures = json.loads((tmp_path / "pairs.json").read_text())["figures"]["as shipped"]
    one, two = figures["one character"], figures["two characters"]
    assert one["alone"][0] >= 0.75 and one["vokens"][0] >= 0.75
    assert one["ratio"][0] == one["vokens"][0] / one["alone"][0] and two["vokens"][0] > 0
    assert (tmp_path / "pairs.md").read_text().count("| as shipped |") == 2
    assert Image.open(tmp_path / "pairs.png").size == (8 * 128, 2 * 128)


def test_ways_of_painting_are_set_against_each_other(tmp_path, program, refused):
    program("evaluate_steps", "--count", 8, "--ways", "8x2.5", "1x1", "--out", tmp_path / "steps.json")
    drawn, decoded, eight, one = json.loads((tmp_path / "steps.json").read_text())["rows"]
    assert (eight["unet_rows"], one["unet_rows"]) == (16, 1)
    assert drawn["all_right"] == decoded["all_right"] == 1
    assert one["frechet"] > eight["frechet"] > decoded["frechet"] and 0.5 < decoded["edge_energy"] < 1
    assert "'fast' is not steps and a guidance scale, as 20x2.5" in refused(
        "evaluation/evaluate_steps", "--ways", "fast"
    )


def test_talks_are_answered(data, tmp_path, program):
    program("evaluate_dialogue", "--data", data / "mmdialog", "--out", tmp_path, "--count", 1, *FEW)
    (task,) = results(tmp_path)["tasks"].values()
    assert task["items"] == 4 and {"picture_f1", "bleu_1", "character_bleu_1_as_published"} < task["figures"].keys()


def test_replies_of_other_settings_are_not_mixed(data, tmp_path, program, refused):
    given = ("--data", data / "cc3m", "--out", tmp_path, "--count", 1, *FEW)
    program("evaluate_alignment", *given)
    assert "seed 0, not 1" in refused("evaluation/evaluate_alignment", *given, "--seed", 1)


def test_settings_come_from_a_file_too(data, tmp_path, program):
    file = tmp_path / "pairs.yaml"
    file.write_text(f"data: {data / 'cc3m'}\ncount: 3\nnum_inference_steps: 1\njudge: storyworld\n")
    program("evaluate_alignment", "--config", file, "--count", 1, "--out", tmp_path / "out")
    (task,) = results(tmp_path / "out")["tasks"].values()
    assert task["items"] == 1 and "frame_accuracy" in task["figures"]


def test_too_many_items_without_pictures_are_one_line_and_leave_nothing(data, tmp_path, refused):
    shutil.copytree(data / "cc3m", tmp_path / "cc3m")
    for picture in (tmp_path / "cc3m").rglob("*.png"):
        picture.unlink()
    told = refused("evaluation/evaluate_alignment", "--data", tmp_path / "cc3m", "--out", tmp_path / "out")
    assert told.startswith("2 of the 4 items cannot be used, and 1.00% may (max_bad_share). They are: 000000: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "layout", "file"),
    [
        ("evaluate_alignment", "cc3m", "cc3m_{}.tsv"),
        ("evaluate_stories", "vist", "{}_cleaned.json"),
        ("evaluate_dialogue", "mmdialog", "{0}/{0}_conversations.txt"),
    ],
)
def test_a_split_is_found_by_its_name_or_told(tmp_path, refused, name, layout, file):
    for split in ("train", "val"):
        path = tmp_path / "data" / file.format(split)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    given = ("--data", tmp_path / "data", "--out", tmp_path / "out")
    assert "val" in refused(f"evaluation/{name}", *given)
    told = refused(f"evaluation/{name}", *given, "--split", "test")
    assert told == f"split: there is no split test; {tmp_path}/data has train, val\n"


PAGE, TABLE = ("page", "one", "two", "--out", "out"), ("table", "key.json", "answers.json")
PROGRAMS = {
    **{
        f"evaluation/evaluate_{name}": ("--data", "nowhere", "--out", "out")
        for name in ("alignment", "stories", "dialogue")
    },
    "evaluation/evaluate_interleaved": ("--data", "nowhere.jsonl", "--out", "out"),
    "evaluation/evaluate_reading": ("--data", "nowhere.jsonl", "--out", "out"),
    "evaluation/evaluate_storyworld": ("--model", "owner/nowhere"),
    "evaluation/evaluate_pairs": ("--pairs", "{one: owner/nowhere}", "--out", "out"),
    "evaluation/draw_samples": ("--out", "nowhere"),
    "evaluation/human_study": PAGE,
    "evaluation/reproduce_claims": ("--work", "work", "--job", "nowhere"),
    "pipelines/tell_stories": ("--openings", "nowhere.jsonl", "--out", "out"),
    "pipelines/generate_dataset": ("--rows", "nowhere.jsonl", "--out", "out"),
    "pipelines/chat": ("--model", "owner/nowhere"),
    "benchmarks/benchmark_evaluation": ("--model", "owner/nowhere"),
    "benchmarks/benchmark_import": ("--scale", "3"),
    "benchmarks/benchmark_miniature": ("--model", "owner/nowhere"),
    "benchmarks/benchmark_published": ("--device", "abacus"),
    "benchmarks/benchmark_service": ("--out", "/dev/null/out.json"),
    "benchmarks/benchmark_training": ("--scale", "3"),
    "benchmarks/simulate_service": ("--costs", "nowhere.json"),
}


@pytest.fixture
def empty(tmp_path, monkeypatch):
    """An empty current folder."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    return tmp_path / "empty"


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_is_missing_is_one_line_and_nothing_is_left(name, refused, empty):
    assert refused(name, *PROGRAMS[name])
    assert list(empty.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        *(
            (f"evaluation/evaluate_{name}", words, told)
            for name in ("alignment", "stories", "dialogue")
            for words, told in (
                (("--batch-size", 0), "batch_size is 0, must be at least 1"),
                (("--count", -1), "count is -1, must be at least 1"),
                (("--seed", -1), "seed is -1, must be at least 0"),
                (("--max-bad-share", 1), "max_bad_share is 1.0, must be below 1"),
                (("--guidance-scale", "nan"), "guidance_scale is nan, must be a finite number"),
                (("--num-inference-steps", 0), "num_inference_steps is 0, must be at least 1"),
                (("--dtype", "int8"), "dtype is 'int8', must be one of float32, bfloat16, float16"),
                (("--prompts", "loud"), "prompts is 'loud', must be one of chat, published"),
                (("--baseline", "mine"), "baseline is 'mine', must be one of diffusion, two-stage, gill, divter"),
                (("--mark", "[DST]"), "mark goes with baseline divter, not with None"),
                (("--colour", "red"), "unrecognized arguments: --colour red"),
            )
        ),
        ("evaluation/evaluate_stories", ("--tasks", "every step", "no step"), "tasks is 'no step', must be one of fi"),
        ("evaluation/evaluate_storyworld", ("--count", 0), "count is 0, must be at least 1"),
        ("evaluation/evaluate_storyworld", ("--out", "."), ". is a folder, not a file"),
        (
            "evaluation/evaluate_storyworld",
            ("--adapter", "nowhere", "--model", "storyworld-mini"),
            "adapter: nowhere is not the folder of one",
        ),
        ("evaluation/evaluate_pairs", ("--count", 1), "count is 1, must be at least 4"),
        ("evaluation/evaluate_pairs", ("--pairs", "{one: nowhere}", "--out", "out"), "unknown model 'nowhere'"),
        ("evaluation/human_study", ("--count", 0), "count is 0, must be at least 1"),
        ("evaluation/human_study", ("--names", "one"), "names: two systems are compared, got 1"),
        ("evaluation/reproduce_claims", ("--minutes", 0), "minutes is 0.0, must be above 0"),
        ("pipelines/tell_stories", ("--steps", 0), "steps is 0, must be at least 1"),
        ("pipelines/generate_dataset", ("--part-rows", 0), "part_rows is 0, must be at least 1"),
        ("pipelines/chat", ("--out", ""), "out is empty, expected a path"),
        ("benchmarks/benchmark_evaluation", ("--stories", 0), "stories is 0, must be at least 1"),
        ("benchmarks/benchmark_import", (), "scale is 3, must be one of 1, 2, 4, 8, 16, 32"),
        ("benchmarks/benchmark_miniature", ("--out", "."), ". is a folder, not a file"),
        ("benchmarks/benchmark_published", ("--bandwidth", 0), "bandwidth is 0.0, must be above 0"),
        ("benchmarks/benchmark_published", (), "cannot open the device abacus: "),
        ("benchmarks/benchmark_service", ("--soak", 0), "soak is 0.0, must be above 0"),
        ("benchmarks/benchmark_service", ("--batch-size", 1), "batch_size is 1, must be at least 2"),
        ("benchmarks/benchmark_training", ("--scale", 8, "--batches", 4, 0), "batches is 0, must be at least 1"),
        ("benchmarks/simulate_service", ("--shares", 2), "shares is 2.0, must be at most 1"),
        ("benchmarks/simulate_service", ("--gpus", 0), "gpus is 0, must be at least 1"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(name, given, told, refused, empty):
    assert refused(name, *PROGRAMS[name], *given).startswith(told)
    assert list(empty.iterdir()) == []


def test_a_full_disk_is_one_line(data, tmp_path, refused, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    told = refused("evaluation/evaluate_alignment", "--data", data / "cc3m", "--out", tmp_path / "out", "--count", 1)
    assert "No space left on device" in told and list((tmp_path / "out").glob("*.json*")) == []


def test_what_cannot_be_shared_runs_in_one_process(refused, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    shared = {f"evaluation/evaluate_{name}" for name in ("alignment", "stories", "dialogue", "reading", "interleaved")}
    for name in PROGRAMS.keys() - shared:
        if name not in ("benchmarks/benchmark_import", "benchmarks/benchmark_training", "evaluation/reproduce_claims"):
            assert refused(name, *PROGRAMS[name]).startswith("this program runs in one process")


def test_stories_are_told_for_each_opening(tmp_path, tiny_folder, pictures, run_program, refused, capsys):
    pictures[0].save(tmp_path / "fox.png")
    openings = tmp_path / "openings.jsonl"
    openings.write_text('{"opening": "A fox wakes up."}\n{"opening": "It sleeps.", "image": "fox.png"}\n')
    given = ("--openings", openings, "--model", tiny_folder, "--steps", 1, "--seed", 3, "--out", tmp_path / "out")
    run_program("pipelines/tell_stories", *given)
    records = [json.loads((tmp_path / f"out/00{number}/story.json").read_text()) for number in (1, 2)]
    assert [(record["prompt"], record["seed"]) for record in records] == [("A fox wakes up.", 3), ("It sleeps.", 4)]
    assert "ended" not in capsys.readouterr().out
    # Again, they are replaced; what is not an earlier run's is told before any is.
    before = os.stat(tmp_path / "out/001").st_ino
    (tmp_path / "out/002/notes.txt").touch()
    assert "out/002 holds other files" in refused("pipelines/tell_stories", *given)
    openings.write_text('{"opening": "A fox wakes up."}\n{"opening": " "}\n')
    assert "line 2: the opening is empty" in refused("pipelines/tell_stories", *given)
    openings.write_text('{"opening": "A fox wakes up.", "image": "none.png"}\n')
    assert "none.png: no such file" in refused("pipelines/tell_stories", *given)
    assert os.stat(tmp_path / "out/001").st_ino == before
    # The tiny model paints nothing by itself.
    openings.write_text('{"opening": "A fox wakes up."}\n')
    run_program("pipelines/tell_stories", *given[:4], "--steps", 3, "--out", tmp_path / "ended")
    assert capsys.readouterr().out == "1 of 1 stories ended by themselves before step 3\n"
    steps = json.loads((tmp_path / "ended/001/story.json").read_text())["steps"]
    assert len(steps) == 2 and steps[0]["image"] == "step-1.png" and steps[1]["image"] is None


def test_a_talk_in_the_terminal(tmp_path, tiny_folder, pictures, run_program, capsys, monkeypatch):
    pictures[0].save(tmp_path / "fox.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/001.png").write_text("somebody's")
    said = (
        f"/image {tmp_path}/none.png\n/image {tmp_path}/fox.png\nDraw \xff this.\n/image {tmp_path}/fox.png\n\n\nnever"
    )
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(said.encode("latin-1")), encoding="utf-8"))
    asked = []

    def stream(self, content, **options):
        asked.append(content)
        yield TextEvent(0, "Here:")
        yield ImageEvent(0, pictures[1])

    monkeypatch.setattr("minigpt5.chat.Chat.stream", stream)
    run_program("pipelines/chat", "--model", tiny_folder, "--out", tmp_path / "out")
    told = capsys.readouterr().out
    assert "none.png: no such file" in told and f"Here: [{tmp_path}/out/002.png]" in told
    assert [part["type"] for part in asked[0]] == ["image", "text"] and asked[0][1]["text"] == "Draw \ufffd this."
    assert [[part["type"] for part in content] for content in asked[1:]] == [["image"]]
    assert Image.open(tmp_path / "out/002.png").tobytes() == pictures[1].tobytes()
    assert sorted(os.listdir(tmp_path / "out")) == ["001.png", "002.png", "003.png"]


def test_a_vae_is_examined_on_pictures_drawn_in_its_own_size():
    """Smaller ones made larger are blurred, as none that it has to keep."""
    seen = []

    def encode(pixels):
        seen.append(pixels)
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: pixels))

    vae = SimpleNamespace(config=SimpleNamespace(sample_size=128), encode=encode)
    vae.decode = lambda latents: SimpleNamespace(sample=0.98 * latents)
    program = runpy.run_path(str(Path(__file__).parents[2] / "evaluation/evaluate_storyworld.py"))
    *_, figure = program["examine_parts"](SimpleNamespace(vae=vae, device="cpu"), 2)
    drawn = [to_tensor(draw(scene, 128), 128) for scene in sample_scenes(2, companion=False)]
    assert torch.equal(seen[0], torch.stack(drawn))
    assert figure.value > 40 and figure.reached


def test_a_target_that_is_just_met_is_reached():
    figure = runpy.run_path(str(Path(__file__).parents[2] / "evaluation/evaluate_storyworld.py"))["Figure"]
    assert figure("difference", 0.945 - 0.975, -0.03).reached and figure("share", 180 / 200, 0.9).reached
    assert not figure("difference", 0.940 - 0.975, -0.03).reached and not figure("share", 179 / 200, 0.9).reached


@pytest.mark.slow
def test_one_process_and_two_examine_the_miniature_alike(tmp_path):
    program, figures = Path(__file__).parents[2] / "evaluation/evaluate_storyworld.py", []
    for processes in ("1", "2"):
        out = tmp_path / f"{processes}.json"
        options = ("--model", "storyworld-mini", "--count", "2", "--processes", processes, "--out", str(out))
        told = subprocess.run([sys.executable, program, *options], check=True, capture_output=True, text=True).stdout
        results = json.loads(out.read_text())
        assert set(results["intervals"]) < set(results["figures"]) and all(name in told for name in results["figures"])
        figures.append(results["figures"])
    assert figures[0] == figures[1]
