"""Data sets as people have them: splits of other names, stories of one step, conversations longer than the context."""

import json
import logging

import pytest

CONFIG = "configs/storyworld-mini/instructions.yaml"
LONG = "and then it went on " * 300


@pytest.fixture
def chats(tmp_path):
    """Writes conversations as the splits train and val."""

    def write(*replies):
        lines = [
            {"messages": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": reply}]}
            for reply in replies
        ]
        (tmp_path / "data/chat").mkdir(parents=True)
        for split in ("train", "val"):
            (tmp_path / f"data/chat/{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        few = ("--steps", 2, "--batch_size", 2, "--judged", 1, "--told", 2, "--report_to", "null", "--mix", "{chat: 2}")
        out = ("--data", tmp_path / "data", "--model", "storyworld-mini", "--out", tmp_path / "out")
        return ("--config", CONFIG, *few, *out)

    return write


def test_a_split_called_val_and_rows_that_are_too_long(run_program, chats, tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    run_program("training/tune_instructions", *chats("Hi.", LONG, "Good day."), "--max_bad_share", 0.5)
    assert (tmp_path / "out/model/model_index.json").exists()
    assert "cannot be used: chat, the row that begins 'Hello.'" in caplog.text
    assert "tokens long, and the model's context holds 512" in caplog.text


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_rows_that_are_too_long_stop_the_run_with_one_line(run_program, chats, capsys, workers):
    with pytest.raises(SystemExit) as stop:
        run_program("training/tune_instructions", *chats("Hi.", LONG, LONG), "--num_workers", workers)
    told = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    assert told.startswith("tune_instructions.py: error: 2 of the ") and "1.00% may (max_bad_share)" in told


def test_a_dry_run_tells_the_splits(run_program, chats, capsys, tmp_path):
    words = chats("Hi.")
    elsewhere = [tmp_path / "gone" if word == tmp_path / "data" else word for word in words]
    with pytest.raises(SystemExit) as stop:
        run_program("training/tune_instructions", *words, "--dry_run", "true")
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert f"{tmp_path}/data/chat: train with train, validation with val\n" in told and "together" in told
    with pytest.raises(SystemExit) as stop:
        run_program("training/tune_instructions", *elsewhere, "--dry_run", "true")
    assert stop.value.code == 0 and "is missing: its splits are not checked" in capsys.readouterr().out
