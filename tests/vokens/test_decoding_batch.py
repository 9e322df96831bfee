"""Rows that enter and leave a batch between steps say what they say alone."""

import pytest
import torch
from families import Families

from minigpt5 import DecodingConfig
from minigpt5.readers import add_vokens, reader_of
from minigpt5.readers.prefix import KeyValuePrefix
from minigpt5.vokens.decoding import DecodingBatch, InterleavedDecoder, VokenEvent

# With them positions of three axes, windows of attention, and keys of a prefix.
FAMILIES = ["minigpt4", "qwen2_5_vl", "gemma3", "prefix"]


@pytest.fixture(scope="module")
def families(texts):
    return Families(texts)


@pytest.fixture(params=FAMILIES)
def reader(request, families):
    family = "llama" if request.param == "prefix" else request.param
    model, processor = families(family)
    if family != "minigpt4":
        add_vokens(model, processor, 4)
    if request.param == "prefix":
        torch.manual_seed(0)
        model.prefix = KeyValuePrefix(model.config, 3)
    return reader_of(model.eval(), processor)


def ask(reader, words, picture=None):
    content = [{"type": "text", "text": words}]
    if picture is not None and reader.image_token_id is not None:
        content.insert(0, {"type": "image", "image": picture})
    return reader.encode([[{"role": "user", "content": content}]])


def decoder_of(reader, seed, **settings):
    config = DecodingConfig(max_new_tokens=6, max_images=2, image_mode="always", **settings)
    return InterleavedDecoder(reader, config, [torch.Generator().manual_seed(seed)])


def told(events):
    texts, blocks = {}, {}
    for event in events:
        if isinstance(event, VokenEvent):
            blocks.setdefault(event.row, []).append(event.features)
        else:
            texts[event.row] = texts.get(event.row, "") + event.text
    return texts, blocks


@torch.no_grad()
def test_rows_that_come_and_go_say_what_they_say_alone(reader, pictures):
    asked = [("go on", None), ("what is in this picture of a fox in the forest", pictures[0]), ("a cat", pictures[1])]
    settings = [{}, {"do_sample": True, "top_k": 0, "top_p": 1.0}, {"do_sample": True, "temperature": 2.0}]
    alone = []
    for seed, (question, own) in enumerate(zip(asked, settings, strict=True)):
        texts, blocks = told(decoder_of(reader, seed, **own).events(ask(reader, *question)))
        alone.append((texts.get(0, ""), blocks[0]))

    batch, events = DecodingBatch(reader), []
    for seed, (question, own) in enumerate(zip(asked, settings, strict=True)):
        cache = reader.new_cache(cut=True)
        assert batch.takes_more
        assert batch.add(decoder_of(reader, seed, **own), ask(reader, *question), cache) == [seed]
        for _ in range(2):
            events += batch.step()
        batch.remove(batch.whole())
    while batch.goes_on:
        events += batch.step()
        batch.remove(batch.whole())
    assert not batch.rows and len(batch.cache) == 0
    texts, blocks = told(events)
    for number, (text, features) in enumerate(alone):
        assert texts.get(number, "") == text
        for one, other in zip(blocks[number], features, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_what_a_row_has_read_among_others_is_what_it_has_read_alone(reader):
    batch = DecodingBatch(reader)
    for seed, words in enumerate(["a", "a much longer question about a red fox in the forest"]):
        batch.add(decoder_of(reader, seed), ask(reader, words), reader.new_cache(cut=True))
    list(batch.step())
    inputs = ask(reader, "a")
    read = batch.read_by(0)
    assert read.ids[0, : inputs["input_ids"].shape[1]].tolist() == inputs["input_ids"][0].tolist()
    alone = reader.new_cache(cut=True)
    reader.prefill(inputs, alone)
    ids = read.ids[:, len(alone) :]
    reader.extend(ids, torch.ones_like(ids), alone)
    assert torch.equal(read.positions, alone.positions) and bool(read.mask.all())
    for one, other in zip(read.states.layers, alone.states.layers, strict=True):
        torch.testing.assert_close(one.keys, other.keys, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one.values, other.values, atol=1e-5, rtol=1e-4)
    assert read.nbytes == sum(layer.keys.nbytes + layer.values.nbytes for layer in alone.states.layers)
    assert read.nbytes < batch.cache.nbytes / 2


@torch.no_grad()
def test_a_row_that_is_given_up_leaves_the_others_as_they_are(reader):
    def run(give_up):
        batch = DecodingBatch(reader)
        for seed, words in enumerate(["a much longer question about a red fox", "go on"]):
            batch.add(decoder_of(reader, seed), ask(reader, words), reader.new_cache(cut=True))
        events = list(batch.step())
        if give_up:
            batch.remove([0])
        while batch.goes_on:
            events += batch.step()
        texts, blocks = told(events)
        return texts.get(1, ""), blocks[1]

    (text, features), (same, others) = run(False), run(True)
    assert text == same
    torch.testing.assert_close(features, others, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_nothing_joins_where_a_window_has_forgotten(families):
    model, processor = families("gemma3")
    add_vokens(model, processor, 4)
    reader, batch = reader_of(model.eval(), processor), DecodingBatch(reader_of(model.eval(), processor))
    batch.add(decoder_of(reader, 0), ask(reader, "go on"), reader.new_cache())
    assert not batch.takes_more
    batch.remove([0])
    assert batch.takes_more
