"""The page that tells stories, without a browser."""

from types import SimpleNamespace

import pytest

gr = pytest.importorskip("gradio")

from minigpt5.service.engine import Engine  # noqa: E402
from minigpt5.studio.pictures import Pictures  # noqa: E402
from minigpt5.studio.storybook import StorybookPage  # noqa: E402
from minigpt5.studio.turns import Choices  # noqa: E402

VISITOR = SimpleNamespace(session_hash="one")


@pytest.fixture
def page(pipe, tmp_path):
    engine = Engine(pipe)
    with gr.Blocks():
        page = StorybookPage(engine, "tiny", Pictures(tmp_path))
    yield page
    engine.close(drain=False)


@pytest.mark.parametrize("pages", [0, 1, 2])
def test_a_story_that_is_stopped_between_two_pages_has_no_further_one(page, pages):
    choices = Choices(num_inference_steps=1, image_mode="always")
    updates = page._tell(VISITOR, [], "A red fox wakes up.", 4, 0, [], choices)
    steps = [next(updates)[1] for _ in range(1 + pages)]
    assert len(steps[-1]) == pages
    page.stop(VISITOR)
    with pytest.warns(UserWarning, match=r"Stopped\."):
        (last,) = updates
    assert len(last[1]) == pages and page.running == {}
