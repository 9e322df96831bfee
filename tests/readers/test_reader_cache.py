"""Keys and values that are kept with room behind them."""

import torch
from transformers import Gemma3TextConfig
from transformers.cache_utils import DynamicLayer

from minigpt5.readers.cache import RoomyLayer, new_states
from minigpt5.readers.generic import KEPT_ROOMS


def states(length, seed, batch=2):
    generator = torch.Generator().manual_seed(seed)
    # Of some models keys and values differ in width.
    return torch.randn(batch, 3, length, 4, generator=generator), torch.randn(batch, 3, length, 5, generator=generator)


def same(one, other):
    return torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)


@torch.no_grad()
def test_room_holds_what_a_layer_without_it_holds():
    roomy, plain = RoomyLayer(), DynamicLayer()
    for seed, length in enumerate([5, 1, 1, 8, 1, 200, 1]):
        for layer in (roomy, plain):
            layer.update(*states(length, seed))
        assert same(roomy, plain) and roomy.get_seq_length() == plain.get_seq_length()
    for removed in (-3, -100):
        for layer in (roomy, plain):
            layer.crop(removed)
            layer.update(*states(2, seed=-removed))
        assert same(roomy, plain)
    for layer in (roomy, plain):
        layer.batch_select_indices(torch.tensor([1]))
        layer.update(*states(1, seed=7, batch=1))
    assert same(roomy, plain)
    for layer in (roomy, plain):
        layer.reset()
        layer.update(*states(4, seed=8, batch=1))
    assert same(roomy, plain)


@torch.no_grad()
def test_further_tokens_move_nothing_and_take_no_keys_of_others_with_them():
    layer = RoomyLayer()
    layer.update(*states(50, seed=0))
    layer.update(*states(1, seed=1))
    place, prompt = layer.keys.data_ptr(), layer.keys[:, :, :50].clone()
    for seed in range(2, 40):
        layer.update(*states(1, seed))
    assert layer.keys.data_ptr() == place and torch.equal(layer.keys[:, :, :50], prompt)
    other = layer.keys.clone()
    layer.keys = other
    layer.update(*states(1, seed=40))
    assert layer.keys.data_ptr() not in (place, other.data_ptr()) and torch.equal(layer.keys[:, :, :-1], other)


def test_what_is_differentiated_is_not_written_over():
    keys, values = states(3, seed=0)
    keys.requires_grad_(True)
    layer = RoomyLayer()
    layer.update(keys, values)
    layer.update(*states(1, seed=1))
    layer.keys.square().sum().backward()
    torch.testing.assert_close(keys.grad, 2 * keys.detach())


def test_layers_with_a_window_stay_what_they_are():
    sizes = {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 4}
    names = [type(layer).__name__ for layer in new_states(Gemma3TextConfig(**sizes)).layers]
    assert names == ["DynamicSlidingWindowLayer", "RoomyLayer"]
    plain = new_states()
    plain.update(*states(1, seed=0), 0)
    assert type(plain.layers[0]) is RoomyLayer


def test_attention_is_given_a_mask_only_where_a_row_has_a_place_without_a_token(pipe, script):
    """A mask of ones would be asked for its values at every step."""
    given = []

    def look(module, args, options):
        given.append(None if options["attention_mask"] is None else options["attention_mask"].tolist())

    handle = pipe.reader.body.register_forward_pre_hook(look, with_kwargs=True)
    try:
        script("a b c")
        pipe("one", image_mode="never", max_new_tokens=3)
        alone = list(given)
        given.clear()
        script("a b c", "a b c")
        pipe(["one", "one two three"], image_mode="never", max_new_tokens=3)
    finally:
        handle.remove()
    # The prompt has one, which tells that it is full; what follows needs none.
    assert alone[0] is not None and 0 not in alone[0][0] and alone[1:] == [None, None]
    assert len(given) == 3 and all(0 in mask[0] and 0 not in mask[1] for mask in given)


def test_of_many_sizes_of_replies_those_used_last_keep_their_room(pipe, monkeypatch):
    reader = pipe.reader
    monkeypatch.setattr(type(reader), "_reads_in_fixed_room", True)

    def states_of(rows):
        with reader.reply_cache(reader.encode(["Draw a cat."] * rows), length=4) as cache:
            return cache.states

    used = [states_of(rows) for rows in range(1, KEPT_ROOMS + 1)]
    assert states_of(1) is used[0]
    states_of(KEPT_ROOMS + 1)
    assert states_of(1) is used[0] and states_of(KEPT_ROOMS) is used[-1]
    assert states_of(2) is not used[1]
