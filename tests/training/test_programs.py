"""What every training program does with bad settings: one line that names them and exit code 2, before it begins."""

import runpy
from pathlib import Path

import pytest

from minigpt5.utils.programs import read_config

ROOT = Path(__file__).parents[2]
LOOP = ("--steps", "1", "--batch_size", "4", "--learning_rate", "0.1", "--report_to", "null")
WORLD = ("--data", "nowhere", "--out", "nowhere", "--model", "nowhere")
# The settings that each program needs beside the loop's.
PROGRAMS = {
    "align_vokens": (*WORLD, "--mix", "{draw: 4}"),
    "train_interleaved": (*WORLD, "--mix", "{story: 4}"),
    "finetune_diffusion": (*WORLD, "--mix", "{pair: 4}"),
    "pretrain_projection": (*WORLD, "--mix", "{pair: 4}"),
    "tune_instructions": (*WORLD, "--mix", "{caption: 4}"),
    "pretrain_qformer": (*WORLD, "--mix", "{pair: 4}"),
    "miniature/align_coached": (*WORLD, "--mix", "{draw: 4}"),
    "miniature/interleave_coached": (*WORLD, "--mix", "{story: 4}", "--weights.caption", "1"),
    "miniature/train_judge": ("--out", "nowhere", "--held_out_share", "0.1"),
    "miniature/train_vae": (*WORLD[:4], "--l1_weight", "1", "--kl_weight", "1", "--character_weight", "1"),
    "miniature/fit_mapper": (*WORLD, "--captions", "4", "--guidance_dropout", "0.1"),
    "miniature/pretrain_comprehension": (
        *(*WORLD[:4], "--captions_only_steps", "1", "--captions_only_batch_size", "4"),
        *("--mix", "{caption: 4}", "--naming_weight", "1"),
    ),
    "miniature/train_diffusion": (
        *(*WORLD[:4], "--vae", "nowhere", "--text_only_steps", "1", "--text_batch_size", "4", "--naming_weight", "1"),
        *("--guidance_dropout", "0.1", "--snr_gamma", "null", "--num_inference_steps", "2", "--guidance_scale", "2"),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_settings_of_the_loop_have_ranges_in_every_program(refused, name):
    for setting, value in {
        "steps": -1,
        "batch_size": 0,
        "learning_rate": 0,
        "save_every": 0,
        "keep_checkpoints": 0,
        "evaluate_every": 0,
        "log_every": 0,
        "ema_decay": 1,
        "mixed_precision": "half",
        "report_to": "paper",
        "seed": -1,
        "num_workers": -1,
        "best": "height",
    }.items():
        assert refused(f"training/{name}", *LOOP, *PROGRAMS[name], f"--{setting}={value}").startswith(f"{setting} is ")


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_folder_that_is_missing_is_one_line(refused, name, tmp_path, monkeypatch):
    if name == "miniature/train_judge":
        pytest.skip("it draws its own pictures")
    monkeypatch.chdir(tmp_path)
    assert "nowhere" in refused(f"training/{name}", *LOOP, *PROGRAMS[name])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("align_vokens", ["--mix={story: 7, draw: -1}"], "mix.draw is -1, must be at least 1"),
        ("align_vokens", ["--mix={draw: 3}"], "mix adds up to 3 conversations, batch_size is 4"),
        ("align_vokens", ["--mix={drow: 4}"], "mix: 'drow' is no task here; there are pair, story_pair"),
        ("align_vokens", ["--mix={pair: 4}"], "mix: pair paint nothing"),
        ("align_vokens", ["--mix={story: 4}"], "weights.caption is 0.1, but story has no caption"),
        ("align_vokens", ["--dtype=nonsense"], "dtype is 'nonsense', must be one of float32, bfloat16, float16"),
        ("align_vokens", ["--best=one"], "best is 'one', must be one of minus_loss"),
        ("align_vokens", ["--lora.rank=0"], "lora.rank is 0, must be at least 1"),
        ("train_interleaved", ["--weights.caption=1"], "weights.caption is 1.0, but story has no caption"),
        (
            "train_interleaved",
            ["--prefix_length=4", "--lora.rank=4"],
            "prefix_length: a prefix takes the place of lora",
        ),
        ("finetune_diffusion", ["--mix={draw: 4}"], "mix: 'draw' is no task here; there are pair, story_pair"),
        ("tune_instructions", ["--mix={draw: 4}"], "mix: 'draw' is no task here; there are instruct, caption"),
        ("miniature/pretrain_comprehension", ["--mix={story: 4}"], "mix is of caption, with or without story, talk,"),
    ],
)
def test_settings_that_do_not_go_together_are_one_line(refused, name, words, told):
    assert refused(f"training/{name}", *LOOP, *PROGRAMS[name], *words).startswith(told)


MIXED = [name for name, words in PROGRAMS.items() if "--mix" in words and "comprehension" not in name]


@pytest.mark.parametrize("name", MIXED)
def test_a_split_that_is_not_there_is_told_before_the_model_is_opened(refused, name, small_world, tmp_path):
    words = [*LOOP, *PROGRAMS[name], "--data", small_world, "--out", tmp_path / "out", "--model", "nowhere"]
    for role, other in (("train", "validation"), ("validation", "test")):
        told = refused(f"training/{name}", *words, f"--{role}_split", f"my_{other}")
        assert told.startswith(f"{role}_split: there is no split my_{other}; {small_world}/")
        assert told.endswith("has train, validation\n")
    assert "cannot open the model nowhere" in refused(f"training/{name}", *words, "--train_split", "validation")


@pytest.mark.parametrize(
    ("layouts", "told"),
    [
        ("{cc3m: vist}", "layouts: cc3m cannot be read as vist; it has cc3m or cc3m-shards"),
        ("{vist: vist-rawer}", "layouts: vist cannot be read as vist-rawer; it has vist or vist-raw"),
        ("{coco: cc3m}", "layouts: coco cannot be read as cc3m; there is no data set of that name"),
    ],
)
def test_a_layout_that_is_none_of_the_data_set_is_one_line(refused, layouts, told):
    assert refused("training/align_vokens", *LOOP, *PROGRAMS["align_vokens"], "--layouts", layouts).startswith(told)


def test_yaml_s_words_mean_what_they_say(refused, tmp_path):
    file = tmp_path / "a.yaml"
    for text, told in {
        "mixed_precision: no\nlog_every: 0": "log_every is 0",
        "3: 4": "unknown setting 3",
        "mix: {3: 4}": "mix: '3' is no task here",
        f"mix: {'[' * 2000}": "it is nested too deeply",
    }.items():
        file.write_text(text + "\n")
        words = [*LOOP, *PROGRAMS["align_vokens"]]
        words = words[:-2] if text.startswith("mix:") else words
        assert refused("training/align_vokens", "--config", file, *words).removeprefix(f"{file}: ").startswith(told)


def test_a_caption_loss_needs_a_text_encoder(refused, tiny_folder, small_world, tmp_path):
    model = ("--model", tiny_folder, "--data", small_world, "--out", tmp_path / "out")
    told = refused("training/align_vokens", *LOOP, *PROGRAMS["align_vokens"], *model)
    assert told.startswith(f"weights.caption is 0.1, but {tiny_folder} has no text encoder")


def test_what_cannot_be_shared_runs_in_one_process(refused, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("minigpt5.training.fit.process_state", lambda: type("State", (), {"num_processes": 1}))
    for name in ("miniature/train_judge", "miniature/train_vae", "miniature/pretrain_comprehension"):
        assert refused(f"training/{name}", *LOOP, *PROGRAMS[name]).startswith("this program runs in one process")


CONFIGS = [path for path in sorted((ROOT / "configs").glob("*/*.yaml")) if path.parent.name != "accelerate"]


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_a_configuration_is_understood_by_the_program_that_its_first_line_names(file, monkeypatch):
    monkeypatch.chdir(ROOT)
    command = file.read_text().split("\n")[0]
    program, *words = command[command.index(" training/") + 1 :].split()
    main = runpy.run_path(program)["main"]
    settings = read_config(main.__annotations__["config"], "", words)
    assert settings.out and words[words.index(str(file.relative_to(ROOT))) - 1] in ("--config", "--plan")
