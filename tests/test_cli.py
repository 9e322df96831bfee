"""The command line: its folders, and one clear line for whatever the user can put right."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from minigpt5 import cli, weights
from minigpt5.commands import telling
from minigpt5.story import StoryStep

OPENING = "A red fox wakes up in the forest."


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """An empty current folder with one picture, and no thought of the network."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), "red").save("fox.png")


@pytest.fixture
def miniature(tiny_folder, tmp_path_factory, monkeypatch):
    """`tiny_folder` in the place of the model that ships with the package."""
    shipped = tmp_path_factory.mktemp("shipped")
    (shipped / "storyworld-mini").symlink_to(tiny_folder)
    monkeypatch.setattr(weights, "SHIPPED", shipped)


@pytest.fixture
def fails(capsys, tmp_path):
    """Run a command that fails; gives the one line it says."""

    def run(*argv):
        before = sorted(tmp_path.rglob("*"))
        assert cli.main([str(argument) for argument in argv]) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("minigpt5: error: ") and output.err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
        return output.err

    return run


def test_story(tiny_folder, tmp_path, capsys):
    argv = ["story", OPENING, "--image", "fox.png", "--steps", "2", "--seed", "3", "--model", str(tiny_folder)]
    argv += ["--image-mode", "always"]
    assert cli.main(argv) == 0
    output = capsys.readouterr()
    assert output.out == f"{os.path.join('story', 'index.html')}\n"
    assert "warning" not in output.err.lower()
    record = json.loads((tmp_path / "story" / "story.json").read_text())
    assert (record["prompt"], record["seed"], record["model"]) == (OPENING, 3, str(tiny_folder))
    assert record["image_mode"] == "always"
    assert [step["image"] for step in record["steps"]] == ["step-1.png", "step-2.png"]
    assert sorted(os.listdir("story")) == ["index.html", "step-1.png", "step-2.png", "story.json"]
    pictures = [Path(f"story/step-{i}.png").read_bytes() for i in (1, 2)]

    assert cli.main([*argv, "--out", "again"]) == 0
    assert [Path(f"again/step-{i}.png").read_bytes() for i in (1, 2)] == pictures


def test_a_story_that_ends_by_itself_says_so(tiny_folder, monkeypatch, capsys):
    def told(pipe, opening, **options):
        assert (options["seed"], options["image_mode"]) == (0, "auto")
        return iter([StoryStep(1, OPENING, Image.new("RGB", (8, 8))), StoryStep(2, "The end.", None)])

    monkeypatch.setattr(telling, "tell_story", told)
    argv = ["story", OPENING, "--steps", "4", "--model", str(tiny_folder)]
    assert cli.main(argv) == 0
    output = capsys.readouterr()
    assert output.out == f"{os.path.join('story', 'index.html')}\n"
    assert output.err.splitlines()[-1] == "minigpt5: the story ended by itself after 2 of 4 steps"
    assert sorted(os.listdir("story")) == ["index.html", "step-1.png", "story.json"]
    assert cli.main([*argv[:3], "2", *argv[4:]]) == 0
    assert "ended" not in capsys.readouterr().err


def test_reply(tiny_folder, capsys):
    argv = ["reply", "What do you see?", "--image", "fox.png", "--image", "fox.png", "--model", str(tiny_folder)]
    assert cli.main([*argv, "--image-mode", "always"]) == 0
    record = json.loads(Path("reply/reply.json").read_text())
    text = " ".join(part["text"] for part in record["reply"] if "text" in part)
    assert capsys.readouterr().out == f"{text}\n{os.path.join('reply', 'image-1.png')}\n"
    assert record["images"] == ["fox.png", "fox.png"]
    assert [part["image"] for part in record["reply"] if "image" in part] == ["image-1.png"]
    assert sorted(os.listdir("reply")) == ["image-1.png", "index.html", "reply.json"]

    assert cli.main([*argv, "--image-mode", "never"]) == 0
    assert sorted(os.listdir("reply")) == ["index.html", "reply.json"]


def test_a_sampled_story_follows_its_seed(tiny_folder):
    told = {}
    for seed in "0", "0", "1":
        argv = ["story", OPENING, "--steps", "2", "--temperature", "1", "--seed", seed, "--model", str(tiny_folder)]
        argv += ["--image-mode", "always"]
        assert cli.main(argv) == 0
        record = json.loads(Path("story/story.json").read_text())
        assert record["temperature"] == 1
        told.setdefault(seed, []).append(record["steps"][1]["text"])
    assert told["0"][0] == told["0"][1] != told["1"][0]


@pytest.mark.parametrize("command", ["story", "reply"])
def test_adapter(command, tiny_folder, monkeypatch):
    loaded = []
    monkeypatch.setattr("minigpt5.pipeline.MiniGPT5Pipeline.load_adapter", lambda self, folder: loaded.append(folder))
    Path("adapter").mkdir()
    Path("adapter/adapter.json").write_text("{}")
    options = ["--steps", "1"] if command == "story" else []
    assert cli.main([command, OPENING, *options, "--model", str(tiny_folder), "--adapter", "adapter"]) == 0
    assert loaded == [Path("adapter")]
    assert json.loads(Path(command, f"{command}.json").read_text())["adapter"] == "adapter"


def test_output_that_cannot_be_printed(tiny_folder, monkeypatch, capsys):
    reader, pipe = os.pipe()
    os.close(reader)
    argv = ["reply", OPENING, "--model", str(tiny_folder)]
    for stream, code in ((os.fdopen(os.open("/dev/full", os.O_WRONLY), "w"), 2), (os.fdopen(pipe, "w"), 0)):
        with stream:
            monkeypatch.setattr(sys, "stdout", stream)
            assert cli.main([*argv, "--out", f"reply-{code}"]) == code
        assert Path(f"reply-{code}/reply.json").exists()
    assert capsys.readouterr().err == "minigpt5: error: cannot print: [Errno 28] No space left on device\n"


def test_marks_place_the_pictures(tiny_folder, tiny_pipe, monkeypatch):
    seen = []
    monkeypatch.setattr("minigpt5.loading.open_model", lambda *_: tiny_pipe)
    monkeypatch.setattr(type(tiny_pipe), "encode_prompt", lambda self, prompts, *rest: seen.append(prompts) or 1 / 0)
    for prompt in ("Hello", "Hello <ImageHere>!"):
        with pytest.raises(ZeroDivisionError):
            cli.main(["reply", prompt, "--image", "fox.png", "--model", str(tiny_folder)])
    assert seen == [["<ImageHere>Hello"], ["Hello <ImageHere>!"]]


@pytest.mark.parametrize("command", ["story", "reply"])
def test_arguments_are_checked(command, fails):
    os.mkdir("full")
    for name in ("text.png", "notes", "full/notes.txt"):
        Path(name).touch()
    assert "none.png: no such file" in fails(command, OPENING, "--image", "none.png")
    assert "text.png: not a picture that can be read" in fails(command, OPENING, "--image", "text.png")
    assert "folder" in fails(command, OPENING, "--image", "full")
    assert "the prompt is empty" in fails(command, "  ")
    assert "seed: must be at least 0" in fails(command, OPENING, "--seed", "-1")
    assert "is a file" in fails(command, OPENING, "--out", "notes")
    assert "is a file" in fails(command, OPENING, "--out", "notes/below")
    assert "holds other files" in fails(command, OPENING, "--out", "full")
    assert "current folder" in fails(command, OPENING, "--out", ".")
    os.mkfifo("pipe.png")
    os.symlink("loop.png", "loop.png")
    os.symlink("nowhere", "dangling")
    assert "pipe or device" in fails(command, OPENING, "--image", "pipe.png")
    assert "loop.png: broken picture" in fails(command, OPENING, "--image", "loop.png")
    for name in ("loop.png", "dangling", "loop.png/below"):
        assert "leads nowhere" in fails(command, OPENING, "--out", name)
    for name in ("a" * 300, "pipe.png", "loop.png"):
        assert "unknown model" in fails(command, OPENING, "--model", name)
        assert "is not the folder of an adapter" in fails(command, OPENING, "--adapter", name)
    for option in ("--image", "--out", "--model", "--adapter"):
        assert "surrogate" in fails(command, OPENING, option, os.fsdecode(b"\xff"))
    assert "argument 2 is no text" in fails(command, os.fsdecode(b"\xff"))
    assert "File name too long" in fails(command, OPENING, "--out", "a" * 300)
    assert "unrecognized arguments: --colour" in fails(command, OPENING, "--colour", "--model", "owner/name")
    assert "unrecognized arguments: --see 1" in fails(command, OPENING, "--see", "1")


def test_steps_are_checked(fails):
    assert "must be at least 1, got 0" in fails("story", OPENING, "--steps", "0")
    assert "must be at most 1000" in fails("story", OPENING, "--steps", "9" * 99)
    assert "not a whole number: 'two'" in fails("story", OPENING, "--steps", "two")


def test_a_story_has_one_picture(fails):
    assert "--image: is given twice" in fails("story", OPENING, "--image", "fox.png", "--image", "fox.png")


def test_what_is_joined_is_named_where_it_does_not_open(fails, tiny_folder):
    os.mkfifo("pipe.png")
    os.symlink("loop", "loop")
    Path("broken").mkdir()
    Path("broken/model_index.json").write_text("{")
    for name in ("fox.png", "pipe.png", "loop"):
        assert f"{name} is not the folder of a model" in fails("join", name, tiny_folder, "--out", "joined")
        assert f"{name} is not the folder of a model" in fails("join", tiny_folder, name, "--out", "joined")
        assert "cannot write to" in fails("join", tiny_folder, tiny_folder, "--out", name)
    for name in ("broken", "no-such-owner/name"):
        assert f"cannot open the reader {name}: " in fails("join", name, tiny_folder, "--out", "joined")
        assert f"cannot open the painter {name}: " in fails("join", tiny_folder, name, "--out", "joined")
    assert "too few for 500 vokens" in fails("join", tiny_folder, tiny_folder, "--n-vokens", 500, "--out", "joined")


def test_no_command(fails):
    assert "COMMAND" in fails()


@pytest.mark.parametrize("limit", [40, 20])
def test_decompression_bomb(fails, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert "too large a picture" in fails("story", OPENING, "--image", "fox.png")


@pytest.mark.parametrize("name", ["no-such-model", "/no/such/folder", "./no-such-folder", "../here", "a/b/c", "", "."])
def test_unknown_model(miniature, fails, name):
    error = fails("story", OPENING, "--model", name)
    assert f"unknown model {name!r}" in error
    assert "storyworld-mini" in error and "hub" in error and "folder" in error


def test_broken_model(fails, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{")
    assert "cannot open the model" in fails("story", OPENING, "--model", "model")


def test_repository_out_of_reach(fails):
    """The tests run with the hub switched off."""
    assert "cannot open the model no-such-owner/name" in fails("story", OPENING, "--model", "no-such-owner/name")


@pytest.mark.parametrize("command", ["story", "reply"])
def test_prompt_longer_than_the_context(command, fails, tiny_folder):
    error = fails(command, OPENING * 100, "--model", tiny_folder)
    assert "tokens long" in error and "512" in error


def test_marks_without_pictures(fails, tiny_folder):
    assert "1 image mark(s) but 0 image(s)" in fails("reply", "<ImageHere>", "--model", tiny_folder)


def test_warning_about_unknown_prompts(miniature, capsys):
    for argv, warned in (
        (["story", "A dragon lands.", "--steps", "1"], True),
        (["story", "Foxes play.", "--steps", "1"], False),
        (["reply", "What do you see?", "--image", "fox.png"], False),
    ):
        assert cli.main(argv) == 0
        assert capsys.readouterr().err.count("minigpt5: warning: ") == warned


def test_interruption_leaves_nothing_behind(tiny_folder, tmp_path, monkeypatch, capsys):
    def interrupted(*_, **options):
        yield
        raise KeyboardInterrupt

    monkeypatch.setattr(telling, "tell_story", interrupted)
    assert cli.main(["story", OPENING, "--model", str(tiny_folder)]) == 130
    assert os.listdir(tmp_path) == ["fox.png"]
    assert "Traceback" not in capsys.readouterr().err


HEAVY = {"torch", "transformers", "diffusers", "datasets", "accelerate", "peft", "scipy"}


@pytest.mark.parametrize(
    ("argv", "absent"),
    [
        # Pictures are looked at before the model is opened.
        (["story", OPENING, "--image", "none.png"], HEAVY),
        (["reply", OPENING, "--image", __file__], HEAVY),
        (["story", "--help"], HEAVY | {"numpy", "PIL", "yaml", "tqdm"}),
        (["story", OPENING, "--steps", "0"], HEAVY | {"numpy", "PIL", "yaml", "tqdm"}),
    ],
)
def test_help_and_errors_come_without_libraries(argv, absent):
    code = (
        "import sys; from minigpt5.cli import main\n"
        "try: main(sys.argv[2:])\n"
        "finally: print(sorted(set(sys.argv[1].split()) & set(sys.modules)))"
    )
    command = [sys.executable, "-c", code, " ".join(absent), *argv]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_process_ends_at_once_but_does_what_is_left_for_its_end():
    code = (
        "import atexit, sys; from minigpt5.cli import program\n"
        "class Library:\n    def __del__(self): print('taken apart')\n"
        "library = Library(); atexit.register(print, 'cleaned up'); program()"
    )
    done = subprocess.run([sys.executable, "-c", code, "story", " "], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "cleaned up\n", 1)


def test_as_a_module(tiny_folder):
    """A process of its own shows what libraries would say beside."""
    argv = [sys.executable, "-m", "minigpt5", "story", OPENING, "--steps", "1", "--model", str(tiny_folder)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert "example: minigpt5 story" in subprocess.run([*argv[:3], "--help"], capture_output=True, text=True).stdout
