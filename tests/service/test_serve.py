"""`minigpt5 serve`: what it is told, and how it ends."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import pytest
import requests

from minigpt5 import cli
from minigpt5.commands import serving
from minigpt5.service.feedback import Feedback, FeedbackStore


def refusal(capsys, *arguments):
    assert cli.main(["serve", *map(str, arguments)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("minigpt5: error: ")
    return told


def test_a_port_that_is_taken_is_told(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"cannot listen at 127.0.0.1, port {port}" in refusal(capsys, "storyworld-mini", "--port", port)
    assert "cannot listen at nowhere.invalid" in refusal(capsys, "storyworld-mini", "--host", "nowhere.invalid")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["no-such-model"], "no-such-model"),
        (["storyworld-mini", "--port", "65536"], "at most 65535"),
        (["storyworld-mini", "--batch-size", "0"], "at least 1"),
        (["storyworld-mini", "--adapter", "."], "is not the folder of an adapter"),
        (["storyworld-mini", "--feedback", __file__], "is no file of feedback"),
        ([], "MODEL"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(capsys, arguments, told):
    assert told in refusal(capsys, *arguments)


def test_a_damaged_file_of_feedback_is_told_in_a_line(capsys, tmp_path):
    file = tmp_path / "feedback.sqlite"
    FeedbackStore(file).put(Feedback("one", {}, [], {}, 0, ["text"], "up"))
    file.write_bytes(file.read_bytes()[:100] + b"\xff" * 4000)
    told = f"{file}: database disk image is malformed"
    assert told in refusal(capsys, "storyworld-mini", "--port", 0, "--feedback", file)
    assert cli.main(["feedback", "export", str(file), "--out", str(tmp_path / "out")]) == 2
    assert told in capsys.readouterr().err


def test_an_extra_that_is_not_there_is_named(capsys, monkeypatch):
    find = serving.find_spec
    monkeypatch.setattr(serving, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    assert "this needs uvicorn: pip install 'minigpt5[service]'" in refusal(capsys, "storyworld-mini")


def test_the_command_s_limits_are_the_service_s(tiny_folder, tmp_path, monkeypatch, capsys):
    from minigpt5.service import app

    seen = []
    monkeypatch.setattr(app, "serve", lambda *given: seen.append(given))
    monkeypatch.setenv("MINIGPT5_API_KEY", "secret")
    limits = ["--batch-size", "3", "--queue-size", "5", "--timeout", "7", "--max-new-tokens", "9", "--max-images", "2"]
    feedback = tmp_path / "feedback.sqlite"
    arguments = [tiny_folder, "--port", 0, "--cache-mb", 1, "--allow-urls", "--feedback", feedback, *limits]
    assert cli.main(["serve", *map(str, arguments)]) == 0
    ((pipe, listening, limits, settings),) = seen
    assert pipe.mapper is not None and capsys.readouterr().out.startswith("http://127.0.0.1:")
    assert (limits.batch_size, limits.queue_size, limits.timeout, limits.max_new_tokens) == (3, 5, 7, 9)
    assert (limits.max_images, limits.cache_mb, listening.fileno()) == (2, 1, -1)
    assert (settings.model, settings.api_key, settings.log_prompts) == ("tiny", "secret", False)
    assert settings.pictures.allow_urls
    assert settings.feedback.path == feedback and settings.identity["name"] == str(tiny_folder)


def test_a_model_that_is_the_current_folder_has_its_name(tiny_folder, monkeypatch, capsys):
    from minigpt5.service import app

    seen = []
    monkeypatch.setattr(app, "serve", lambda *given: seen.append(given))
    monkeypatch.chdir(tiny_folder)
    assert cli.main(["serve", ".", "--port", "0"]) == 0
    assert seen[0][-1].model == "tiny"


@pytest.mark.slow
def test_sigterm_ends_it_once_all_are_answered(tiny_folder):
    command = [sys.executable, "-m", "minigpt5", "serve", str(tiny_folder), "--port", "0"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        url = process.stdout.readline().strip()
        answers = []
        body = {"input": "go on", "tools": [{"type": "image_generation"}], "tool_choice": "required"}
        body |= {"num_inference_steps": 40}
        ask = lambda: answers.append(requests.post(f"{url}/v1/responses", json=body, timeout=300))  # noqa: E731
        thread = threading.Thread(target=ask)
        thread.start()
        while "minigpt5_painting_batch_count 1" not in requests.get(f"{url}/metrics", timeout=300).text:
            pass
        process.send_signal(signal.SIGTERM)
        thread.join()
        assert answers[0].status_code == 200 and answers[0].json()["output"][-1]["result"]
        assert process.wait(60) in (0, -signal.SIGTERM)
        lines = [json.loads(line) for line in process.stderr.read().splitlines()]
    assert [line["status"] for line in lines if line["event"] == "request"] == [200]
