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
