"""A little of StoryWorld in each layout, and a system that answers at once."""

import pytest
from PIL import Image

from minigpt5.output import MiniGPT5PipelineOutput
from minigpt5.storyworld.export import export_cc3m, export_mmdialog, export_vist


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Folders cc3m, vist and mmdialog with 4 captions, 3 stories and 2 talks."""
    root = tmp_path_factory.mktemp("data")
    export_cc3m(root / "cc3m", "validation", 4)
    export_vist(root / "vist", "validation", 3)
    export_mmdialog(root / "mmdialog", "validation", 2)
    return root


class Echo:
    """Replies with the last text of each prompt and a picture that its generator draws; notes how it was called."""

    def __init__(self):
        self.calls = []

    def __call__(self, prompts, images=None, *, generator, image_mode, **options):
        from torch import randint

        self.calls.append((prompts, image_mode, options))
        segments = []
        for prompt, own in zip(prompts, generator, strict=True):
            shade = tuple(randint(256, (3,), generator=own).tolist())
            picture = Image.new("RGB", (8, 8), shade)
            said = prompt[-1]["content"][-1]["text"]
            segments.append([said, picture] if image_mode == "always" else [said])
        return MiniGPT5PipelineOutput(text=[], images=[], segments=segments)


@pytest.fixture
def echo():
    return Echo()
