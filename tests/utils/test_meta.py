"""Models without memory for their weights."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from minigpt5.painters.shapes import flux_1
from minigpt5.readers.shapes import qwen2_5_vl


class Room(TorchDispatchMode):
    """The largest tensor that is made in memory, in bytes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and not made.is_meta:
            self.largest = max(self.largest, made.untyped_storage().nbytes())
        return made


def test_models_of_published_shapes_take_no_room_and_their_buffers_have_values():
    with Room() as room:
        reader, painter = qwen2_5_vl("3b"), flux_1()
    assert room.largest < 2**20
    for part in (reader, painter.transformer, painter.vae):
        assert all(parameter.is_meta for parameter in part.parameters())
        assert not any(buffer.is_meta for buffer in part.buffers())
    assert reader.model.language_model.rotary_emb.inv_freq[0] == 1
