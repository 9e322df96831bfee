"""A model as programs open it."""

import torch
from torch import nn

from minigpt5 import MiniGPT5Pipeline
from minigpt5.loading import open_model


def test_convolutions_lie_channels_last_and_are_saved_as_they_were(tiny_pipe, tiny_folder, tmp_path):
    pipe = open_model(tiny_folder)
    for part in (pipe.unet, pipe.vae):
        wide = [m.weight for m in part.modules() if isinstance(m, nn.Conv2d) and max(m.kernel_size) > 1]
        assert wide and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in wide)
    pipe.save_pretrained(tmp_path / "again")
    again = MiniGPT5Pipeline.from_pretrained(tmp_path / "again")
    for name in ("unet", "vae"):
        before, after = getattr(tiny_pipe, name).state_dict(), getattr(again, name).state_dict()
        assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
