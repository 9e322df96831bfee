"""The page to chat on, without a browser."""

from types import SimpleNamespace

import pytest

gr = pytest.importorskip("gradio")

from minigpt5.service.engine import Engine  # noqa: E402
from minigpt5.service.feedback import FeedbackStore  # noqa: E402
from minigpt5.studio.chat import ChatPage  # noqa: E402
from minigpt5.studio.pictures import Pictures  # noqa: E402
from minigpt5.studio.turns import Turn  # noqa: E402

SETTINGS = (0, 2, 2.5, 0, "never")
SOMEBODY = SimpleNamespace(session_hash="somebody")


@pytest.fixture
def page(pipe, tmp_path):
    engine = Engine(pipe)
    with gr.Blocks():
        yield ChatPage(engine, {"name": "tiny"}, FeedbackStore(tmp_path / "feedback.sqlite"), Pictures(tmp_path))
    engine.close(drain=False)


def test_a_turn_is_edited_in_the_words_that_it_was_asked_in(page):
    text = 'What\'s in <b> & "c"?'
    (shown, _) = page.history([Turn(text)])
    # A browser's text box has what the chat was given.
    edited = SimpleNamespace(index=[0, 0], value=shown["content"][0] + " &lt;")
    assert "What's" in edited.value and "<" not in edited.value
    *_, (_, turns, _) = page.edit(SOMEBODY, edited, [Turn(text)], *SETTINGS)
    assert [turn.text for turn in turns] == [text + " <"]


def test_a_chat_that_is_cleared_stays_so(page, held):
    coming = page.said(SOMEBODY, {"text": "a cat", "files": []}, [], *SETTINGS)
    history, turns, _ = next(coming)
    assert len(history) == 2 and len(turns) == 1
    (reply,) = page.running.values()
    assert page.clear(SOMEBODY)[:2] == ([], [])
    # The next reply may be on its way before the model has let go of the first.
    following = page.said(SOMEBODY, {"text": "a dog", "files": []}, [], *SETTINGS)
    next(following)
    held.set()
    assert reply.cancelled and list(coming) == [] and len(page.running) == 1
    *_, (_, turns, _) = following
    assert [turn.text for turn in turns] == ["a dog"] and turns[0].note == "" and page.running == {}
