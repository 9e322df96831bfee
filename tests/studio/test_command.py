"""`minigpt5 studio`: what it is told, and what it hands on."""

import socket
import sys
from types import ModuleType

import pytest

from minigpt5 import cli


def refusal(capsys, *arguments):
    assert cli.main(["studio", *map(str, arguments)]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and told.startswith("minigpt5: error: ")
    return told


@pytest.fixture
def gradio(monkeypatch):
    """As if it were installed; `find_spec` asks for no more."""
    find = cli.find_spec
    monkeypatch.setattr(cli, "find_spec", lambda name: find("json" if name == "gradio" else name))


def test_the_extra_that_is_not_there_is_named(capsys, monkeypatch):
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    assert "this needs gradio: pip install 'minigpt5[studio]'" in refusal(capsys)


def test_what_is_wrong_is_told_before_a_model_is_opened(capsys, gradio):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert f"cannot listen at 127.0.0.1, port {port}" in refusal(capsys, "--port", port)
    assert "no-such-model" in refusal(capsys, "no-such-model")


@pytest.mark.parametrize("options", [[], ["--no-browser"]])
def test_the_model_and_its_address_are_handed_on(tiny_folder, gradio, monkeypatch, capsys, options):
    seen = []
    app = ModuleType("minigpt5.studio.app")
    app.serve = lambda *given: seen.append(given)
    monkeypatch.setitem(sys.modules, app.__name__, app)
    assert cli.main(["studio", str(tiny_folder), "--port", "0", *options]) == 0
    ((pipe, listening, model, browser),) = seen
    address = capsys.readouterr().out.strip()
    assert type(pipe).__name__ == "MiniGPT5Pipeline" and model == tiny_folder.name
    assert address.startswith("http://127.0.0.1:") and browser == (None if options else address)
    assert listening.fileno() == -1
