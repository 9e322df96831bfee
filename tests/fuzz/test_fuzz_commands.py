"""Any words after `minigpt5` run a command, or end with one line and exit code 2, and nothing half-written."""

import io
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from minigpt5 import MiniGPT5Pipeline, cli, loading

OPTIONS = (
    *(
        "--image",
        "--steps",
        "--out",
        "--seed",
        "--sample",
        "--model",
        "--adapter",
        "--image-mode",
        "--n-vokens",
        "--dtype",
    ),
    *(
        "--connector",
        "--llm",
        "--proj",
        "--stage1",
        "--vit-heads",
        "--lora-rank",
        "--revision",
        "--merge",
        "--help",
        "--",
    ),
)
VALUES = (
    *(
        "fox.png",
        "text.png",
        "folder",
        "pipe.png",
        "gone/fox.png",
        "broken",
        "reply",
        "story",
        "1",
        "2",
        "0",
        "-1",
        "1e3",
    ),
    *(
        str(10**30),
        "nan",
        "auto",
        "always",
        "never",
        "float32",
        "mapper",
        "a/b",
        "llm=main",
        "llm=",
        "=",
        "",
        " ",
        "é",
        "\x00",
    ),
    *("\ud800", "<ImageHere>", "[IMG0]", "a fox", "Who? <ImageHere>", "x" * 300),
)
WORDS = st.sampled_from(OPTIONS) | st.sampled_from(VALUES) | st.text(max_size=6).filter(lambda text: "/" not in text)
PROMPTS = st.sampled_from(
    ("a fox", "Who? <ImageHere>", "<ImageHere><ImageHere>", "[IMG0]", "\ufdd0", "{{ x }}")
) | st.text(min_size=1, max_size=9)


@pytest.fixture
def workplace(small_folder, small_pipe, tmp_path, monkeypatch):
    """A folder with good and bad files, `model` among them, which is open already."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8), "red").save("fox.png")
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/notes.txt").write_text("mine")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/model_index.json").write_text("{")
    (tmp_path / "broken/adapter.json").write_text("{}")
    (tmp_path / "model").symlink_to(small_folder)
    pipe = MiniGPT5Pipeline.from_pipe(small_pipe)
    pipe.register_to_config(num_inference_steps=1)
    pipe.set_progress_bar_config(disable=True)
    genuine = loading.open_model

    def open_model(name, adapter=None):
        return pipe if (str(name), adapter) == ("model", None) else genuine(name, adapter)

    monkeypatch.setattr(loading, "open_model", open_model)
    return tmp_path


def run(monkeypatch, argv):
    """The exit code, and what is said on both streams."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2)]
    with monkeypatch.context() as patch:
        for name, stream in zip(("stdout", "stderr"), streams, strict=True):
            patch.setattr(sys, name, stream)
        try:
            code = cli.main(argv)
        except SystemExit as end:
            code = end.code
    for stream in streams:
        stream.flush()
    return code, *(stream.buffer.getvalue().decode() for stream in streams)


def files(folder):
    return sorted((str(path), path.stat().st_size) for path in folder.rglob("*"))


@given(
    command=st.sampled_from(("story", "reply", "join", "import-official", "", "nonsense")),
    words=st.lists(WORDS, max_size=6),
)
def test_any_words(workplace, monkeypatch, command, words):
    before = files(workplace)
    code, out, err = run(
        monkeypatch,
        [command, "a fox", *words, "--model", "model"] if command in ("story", "reply") else [command, *words],
    )
    if code == 2:
        assert out == "" and err.startswith("minigpt5: error: ") and err.count("\n") == 1
        assert files(workplace) == before
    else:
        assert code == 0 and (out or words)


@given(
    command=st.sampled_from(("story", "reply")),
    prompt=PROMPTS,
    images=st.integers(0, 2),
    options=st.fixed_dictionaries(
        {},
        optional={
            "--seed": st.integers(0, 2**64 - 1),
            "--out": st.sampled_from(("reply", "story", "new/below", "folder", "fox.png")),
            "--sample": st.none(),
        },
    ),
)
def test_any_prompt(workplace, monkeypatch, command, prompt, images, options):
    argv = [
        command,
        *["--image", "fox.png"] * images,
        "--model",
        "model",
        *(["--steps", "2"] if command == "story" else []),
    ]
    for name, value in options.items():
        argv += [name] if value is None else [name, str(value)]
    before = files(workplace)
    code, out, err = run(monkeypatch, [*argv, "--", prompt])
    if code == 2:
        assert out == "" and err.startswith("minigpt5: error: ") and err.count("\n") == 1
        assert files(workplace) == before
    else:
        folder = workplace / options.get("--out", command)
        assert code == 0 and err == "" and (folder / "index.html").is_file() and (folder / f"{command}.json").is_file()
