"""`minigpt5 studio`: what it is told, and what it hands on."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
from types import SimpleNamespace

import pytest
import requests

from minigpt5 import cli
from minigpt5.commands import serving
from minigpt5.loading import identity


def refusal(capsys, *arguments):
    assert cli.main(["studio", *map(str, arguments)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("minigpt5: error: ")
    return told


@pytest.fixture
def gradio(monkeypatch):
    """As if it were installed; `find_spec` asks for no more."""
    find = serving.find_spec
    monkeypatch.setattr(serving, "find_spec", lambda name: find("json" if name == "gradio" else name))


def test_the_extra_that_is_not_there_is_named(capsys, monkeypatch):
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    assert "this needs gradio: pip install 'minigpt5[studio]'" in refusal(capsys)


def test_what_is_wrong_is_told_before_a_model_is_opened(capsys, gradio, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("text " * 100)
    monkeypatch.setitem(sys.modules, "minigpt5.studio.app", SimpleNamespace(serve=None))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"cannot listen at 127.0.0.1, port {port}" in refusal(capsys, "--port", port)
    assert "no-such-model" in refusal(capsys, "no-such-model")
    assert "nowhere/there" in refusal(capsys, "--feedback", tmp_path / "file" / "nowhere/there")
    assert "file is no file of feedback" in refusal(capsys, "--port", 0, "--feedback", tmp_path / "file")
    with sqlite3.connect(tmp_path / "broken") as connection:
        connection.execute("CREATE TABLE feedback (id TEXT)")
    (tmp_path / "broken").write_bytes((tmp_path / "broken").read_bytes()[:100] + b"\xff" * 4000)
    assert "broken: database disk image is malformed" in refusal(capsys, "--port", 0, "--feedback", tmp_path / "broken")


@pytest.mark.parametrize("options", [[], ["--no-browser"]])
def test_the_model_and_its_address_are_handed_on(tiny_folder, gradio, monkeypatch, capsys, options):
    seen = []
    app = SimpleNamespace(serve=lambda *given: seen.append(given))
    monkeypatch.setitem(sys.modules, "minigpt5.studio.app", app)
    assert cli.main(["studio", str(tiny_folder), "--port", "0", *options]) == 0
    ((pipe, listening, model, store, browser),) = seen
    address = capsys.readouterr().out.strip()
    assert type(pipe).__name__ == "MiniGPT5Pipeline" and model == identity(tiny_folder)
    assert store.path.name == "feedback.sqlite" and not store.path.exists()
    assert address.startswith("http://127.0.0.1:") and browser == (None if options else address)
    assert listening.fileno() == -1


@pytest.mark.slow
def test_it_is_there_until_sigterm_and_leaves_nothing_behind(tiny_folder, tmp_path):
    pytest.importorskip("gradio")
    command = [sys.executable, "-m", "minigpt5", "studio", str(tiny_folder), "--port", "0", "--no-browser"]
    environment = os.environ | {"TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path) as studio:
        page = requests.get(studio.stdout.readline().strip(), timeout=120)
        assert page.status_code == 200 and "MiniGPT-5 Studio" in page.text
        assert len(list(tmp_path.glob("minigpt5-studio-*"))) == 1
        studio.send_signal(signal.SIGTERM)
        assert studio.wait(60) == 0
    assert list(tmp_path.glob("minigpt5-studio-*")) == []
