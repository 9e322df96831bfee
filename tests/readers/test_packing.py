"""Packed reading gives what padded reading gives, in fewer rows."""

import copy
import random

import pytest
import torch
from torch.testing import assert_close

from minigpt5.data.tasks import caption_task, exchange, story_context
from minigpt5.readers.minigpt4 import MiniGPT4Reader
from minigpt5.readers.packing import pack
from minigpt5.readers.prefix import KeyValuePrefix
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.scene import split_rng
from minigpt5.storyworld.stories import sample_story


@pytest.fixture
def reader(tiny_pipe):
    """A reader of its own, whose weights may be changed."""
    return MiniGPT4Reader(copy.deepcopy(tiny_pipe.comprehension), tiny_pipe.processor)


@pytest.fixture
def batch(reader):
    """A story with four pictures, and captions that are much shorter than it."""
    steps = sample_story(split_rng("train", 0)).steps
    texts, pictures = [step.text for step in steps], [draw(step.scene) for step in steps]
    story = exchange(story_context(texts[:4], pictures[:4]), [{"type": "text", "text": texts[4]}])
    rng = random.Random(0)
    captions = [caption_task(text[: 8 + 9 * i], pictures[i], rng) for i, text in enumerate(texts)]
    return reader.training_batch([captions[0], story, *captions[1:]])


def test_the_longest_come_first_and_fill_the_rows():
    mask = torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1], [0, 0, 1, 1, 1], [1, 0, 0, 0, 0]])
    packing = pack(mask)
    assert packing.positions.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 1], [0, 0, 0, 0, 0]]
    values = torch.arange(1, 21).view(4, 5, 1)
    packed = packing.pack(values)
    assert packed.squeeze(-1).tolist() == [[6, 7, 8, 9, 10], [13, 14, 15, 1, 2], [16, 0, 0, 0, 0]]
    assert torch.equal(packing.unpack(packed), values * mask.unsqueeze(-1))


def test_nothing_is_packed_of_nothing():
    assert pack(torch.ones(0, 4, dtype=torch.long)).positions.numel() == 0
    packing = pack(torch.zeros(2, 3, dtype=torch.long))
    assert torch.equal(packing.unpack(packing.pack(torch.ones(2, 3, 5))), torch.zeros(2, 3, 5))


def test_a_batch_without_padding_stays_as_it_is():
    packing = pack(torch.ones(3, 4, dtype=torch.long))
    values = torch.randn(3, 4, 2)
    assert torch.equal(packing.pack(values), values) and torch.equal(packing.unpack(values), values)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_packed_states_and_gradients_are_those_of_the_padded_batch(reader, batch, monkeypatch, attention):
    reader.language_model.set_attn_implementation(attention)
    there = batch["attention_mask"].bool()
    rows, found = [], []
    reader.body.layers[0].register_forward_pre_hook(lambda layer, inputs: rows.append(len(inputs[0])))
    for packs in (False, True):
        monkeypatch.setattr(MiniGPT4Reader, "_packs", packs)
        reader.model.requires_grad_(True).zero_grad()
        states = reader.prefill(batch)
        states.last[there].square().mean().backward()
        gradients = {name: part.grad.clone() for name, part in reader.model.named_parameters() if part.grad is not None}
        found.append((states.last.detach(), gradients))
    (padded, expected), (packed, gradients) = found
    assert_close(packed[there], padded[there], rtol=1e-4, atol=1e-5)
    assert not packed[~there].any()
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert_close(gradient, expected[name], rtol=1e-3, atol=1e-5, msg=name)
    padded_rows, packed_rows = rows
    assert padded_rows == len(there) and packed_rows <= padded_rows / 2


def test_what_is_padded_on_the_left_and_computed_twice_is_packed_too(reader, batch, monkeypatch):
    # What is flipped says nothing, but it is read as any text is.
    batch.update({name: batch[name].flip(1) for name in ("input_ids", "attention_mask")})
    batch["pixel_values"] = batch["pixel_values"].flip(0)
    there = batch["attention_mask"].bool()
    assert not there[0, 0] and there[:, -1].all()
    reader.language_model.gradient_checkpointing_enable()
    found = []
    for packs in (False, True):
        monkeypatch.setattr(MiniGPT4Reader, "_packs", packs)
        reader.model.requires_grad_(True).zero_grad()
        reader.language_model.train()
        states = reader.prefill(batch)
        states.last[there].square().mean().backward()
        found.append((states.last.detach()[there], reader.model.query_tokens.grad.clone()))
    (padded, expected), (packed, gradient) = found
    assert_close(packed, padded, rtol=1e-4, atol=1e-5)
    assert_close(gradient, expected, rtol=1e-3, atol=1e-6)
    assert states.features is states.last


@torch.no_grad()
def test_the_layers_that_a_connector_reads_are_unpacked_too(reader, batch, monkeypatch):
    reader.layers = (1, -1)
    there = batch["attention_mask"].bool()
    packed = reader.prefill(batch).features
    monkeypatch.setattr(MiniGPT4Reader, "_packs", False)
    assert_close(packed[there], reader.prefill(batch).features[there], rtol=1e-4, atol=1e-5)


def test_what_would_not_keep_conversations_apart_is_not_packed(reader):
    assert reader._packs
    reader.config._attn_implementation = "flash_attention_2"
    assert not reader._packs
    reader.config._attn_implementation = "sdpa"
    reader.model.prefix = KeyValuePrefix(reader.config, length=2)
    assert not reader._packs
