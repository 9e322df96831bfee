"""Each family that reads, tiny and random, behind the one seam."""

import functools
from types import SimpleNamespace

import pytest
import torch
from families import Families
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    Llama4TextConfig,
)

from minigpt5 import DecodingConfig
from minigpt5.readers import ReaderCache, add_vokens, reader_of
from minigpt5.readers.prefix import KeyValuePrefix
from minigpt5.readers.processor import IGNORE_INDEX
from minigpt5.vokens.adapters import LoraSettings, fuse_adapter, train_adapter
from minigpt5.vokens.decoding import InterleavedDecoder, VokenEvent

SEEING = [
    "minigpt4",
    "blip2",
    "instructblip",
    "llava",
    "llava_onevision",
    "qwen2_vl",
    "qwen2_5_vl",
    "qwen3_vl",
    "idefics3",
    "smolvlm",
    "internvl",
    "gemma3",
    "paligemma",
    "mistral3",
    "janus",
    "composed_llava",
    "minigpt_v2",
    "tinygpt_v",
    "sphinx",
    "cogvlm",
    "qwen_vl",
]
ALL = [*SEEING, "llama", "qwen3", "gpt2"]
CPU = torch.device("cpu")
N_VOKENS = 4
TOWERS = ("vision_model", "vision_tower", "visual")


def text(words):
    return {"type": "text", "text": words}


def image(picture):
    return {"type": "image", "image": picture}


def user(*content):
    return {"role": "user", "content": list(content)}


def assistant(*content):
    return {"role": "assistant", "content": list(content)}


@pytest.fixture(scope="session")
def families(texts):
    return Families(texts)


@pytest.fixture(scope="session")
def looks(pictures):
    """Pictures of different sizes."""
    return [pictures[0], pictures[1].resize((90, 40)), pictures[2].resize((30, 70)), pictures[3]]


@pytest.fixture(scope="session")
def build(families):
    """A reader of its own, whose weights may be changed."""

    def build(family, tied=False, **options):
        model, processor = families(family, tied)
        if family != "minigpt4":
            processor = add_vokens(model, processor, N_VOKENS)
        return reader_of(model, processor, **options)

    return build


@pytest.fixture(scope="session")
def readers(build):
    """A reader of each family, to be left as it is."""
    return functools.cache(build)


def sees(reader):
    return reader.image_token_id is not None


def prompts(reader, looks):
    """Several pictures and turns, none, and one."""
    long = [user(text("Look."), image(looks[1]), text("and"), image(looks[2]), text("What do you see?"))]
    long += [assistant(text("A red fox.")), user(text("Where does it sleep?"))]
    short, middle = [user(text("Draw this: a fox."))], [user(image(looks[0]), text("What is it?"))]
    if not sees(reader):
        long, middle = [user(text("Look.")), *long[1:]], [user(text("What is it that you see?"))]
    return [long, short, middle]


def parts_of(inputs):
    """A batch without what only training needs."""
    return {name: value for name, value in inputs.items() if name not in ("labels", "targets")}


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


# Reading


@pytest.mark.parametrize("family", ALL)
def test_rows_of_a_batch_are_each_row_alone_and_one_full_forward(readers, looks, family):
    reader = readers(family)
    batch, alone = prompts(reader, looks), torch.ones(1, N_VOKENS, dtype=torch.long)
    # In the same steps one row reads a block of vokens, another words, and the third one then the other.
    block, words = reader.voken_ids, [5, 6, 7, 8]
    spoken = torch.tensor([[*block, *words], [*words, *block], [*words[:2], *block, *words[2:]]])
    with torch.no_grad():
        inputs, cache = reader.encode(batch), reader.new_cache()
        read = reader.prefill(inputs, cache).last
        told = [reader.extend(part, torch.ones_like(part), cache).last for part in spoken.split([3, 1, 4], dim=1)]
        told = torch.cat(told, dim=1)
        for row, prompt in enumerate(batch):
            one, cache = reader.encode([prompt]), reader.new_cache()
            length = one["input_ids"].shape[1]
            states = reader.prefill(one, cache).last[0]
            close(read[row, -length:], states)
            for part, theirs in zip(spoken[row].view(2, 1, -1), told[row].split(N_VOKENS), strict=True):
                close(theirs, reader.extend(part, alone, cache).last[0])
            whole = dict(one) | {"input_ids": torch.cat([one["input_ids"], spoken[row : row + 1]], dim=1)}
            whole["attention_mask"] = torch.ones_like(whole["input_ids"])
            if "token_type_ids" in whole:
                behind = torch.ones(1, 2 * N_VOKENS, dtype=torch.long)
                whole["token_type_ids"] = torch.cat([whole["token_type_ids"], behind], dim=1)
            close(torch.cat([states, told[row]]), reader.prefill(whole).last[0])


@pytest.mark.parametrize("family", ALL)
def test_logits_are_the_model_s_own(readers, looks, family):
    reader = readers(family)
    prompt = prompts(reader, looks)[2]
    inputs = dict(reader.encode([prompt]))
    with torch.no_grad():
        ours = reader.logits(reader.prefill(inputs).last)
        if family == "gemma3":
            inputs["token_type_ids"] = (inputs["input_ids"] == reader.image_token_id).int()
        if "image_grid_thw" in inputs:
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == reader.image_token_id).int()
        close(ours, reader.model(**inputs).logits.float())


@pytest.mark.parametrize("family", SEEING)
def test_pictures_make_a_difference_and_so_does_their_order(readers, looks, family):
    reader = readers(family)

    def last(*pictures):
        with torch.no_grad():
            return reader.prefill(reader.encode([[user(*map(image, pictures), text("What?"))]])).last[0, -1]

    one = last(looks[0], looks[3])
    assert (one - last(looks[3], looks[0])).abs().max() > 1e-4
    close(one, last(looks[0], looks[3]))


@pytest.mark.parametrize("family", ["minigpt4", "qwen2_5_vl", "gemma3", "llama"])
def test_states_of_several_layers_stand_side_by_side(build, looks, family):
    reader = build(family, layers=(1, -1))
    inputs = reader.encode([prompts(reader, looks)[2]])
    with torch.no_grad():
        states = reader.prefill(inputs, reader.new_cache())
    width = reader.feature_width // 2
    assert states.features.shape[-1] == reader.feature_width == 2 * states.last.shape[-1]
    assert torch.equal(states.features[..., width:], states.last)
    assert not torch.allclose(states.features[..., :width], states.last)


def test_what_cannot_be_read_is_refused(families):
    tokenizer = families.tokenizer()
    config = Llama4TextConfig(**families.text(tokenizer, False), head_dim=8, num_local_experts=2)
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(ValueError, match="Llama4ForCausalLM cannot be read: its layers do not stand apart"):
        reader_of(model, add_vokens(model, tokenizer, N_VOKENS))


def test_a_picture_to_be_painted_that_is_missing_is_told(readers):
    for family in ("minigpt4", "llava"):
        with pytest.raises(ValueError, match="a picture is a PIL image, an array or a tensor, got NoneType"):
            readers(family).training_batch([[user(text("Draw.")), assistant({"type": "image"})]])


# Decoding


class Scripted(InterleavedDecoder):
    """Each row says its line, then it ends."""

    def script(self, lines):
        self.lines = lines
        return self

    def _choose(self, logits, rows):
        end = next(iter(self.reader.eos_token_ids))
        return [
            line[row.choices] if row.choices < len(line) else end for line, row in zip(self.lines, rows, strict=True)
        ]


@pytest.mark.parametrize("family", ALL)
def test_decoded_blocks_are_those_of_one_full_forward(readers, looks, family):
    reader = readers(family)
    img0, words = reader.voken_ids[0], [40, 41, 42]
    lines = [[*words, img0, 43], [img0, *words, 44, img0], words]
    config = DecodingConfig(max_images=2, stop_strings=())
    batch = prompts(reader, looks)
    events = list(Scripted(reader, config).script(lines).events(reader.encode(batch)))
    found = [
        [event.features for event in events if isinstance(event, VokenEvent) and event.row == row] for row in (0, 1, 2)
    ]
    assert [len(features) for features in found] == [1, 2, 0]
    for row, line in enumerate(lines):
        said = [token for word in line for token in (reader.voken_ids if word == img0 else [word])]
        one, cache = reader.encode(batch[row : row + 1]), reader.new_cache()
        with torch.no_grad():
            first = reader.prefill(one, cache).last[:, -1:]
            rest = reader.extend(torch.tensor([said]), torch.ones(1, len(said), dtype=torch.long), cache).last
        states = torch.cat([first, rest], dim=1)[0]
        starts = [place for place, token in enumerate(said) if token == img0]
        for features, start in zip(found[row], starts, strict=True):
            close(features, states[start : start + N_VOKENS])


@pytest.mark.parametrize("family", ALL)
def test_free_replies_are_the_same_alone_and_together(readers, looks, family):
    reader = readers(family)
    batch = prompts(reader, looks)

    def said(prompts):
        events = list(
            InterleavedDecoder(reader, DecodingConfig(max_new_tokens=6, image_mode="always")).events(
                reader.encode(prompts)
            )
        )
        return [
            "".join(getattr(event, "text", "|") for event in events if event.row == row) for row in range(len(prompts))
        ]

    assert said(batch) == [said([prompt])[0] for prompt in batch]


@pytest.mark.parametrize("family", [f if f == "minigpt4" else pytest.param(f, marks=pytest.mark.slow) for f in ALL])
def test_compiled_steps_say_the_same_from_one_graph_a_batch_size(build, looks, family):
    reader, graphs = build(family), []
    batch = prompts(reader, looks)

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def events(prompts, **settings):
        decoder = InterleavedDecoder(reader, DecodingConfig(max_images=2, stop_strings=(), **settings))
        return list(decoder.events(reader.encode(prompts)))

    def told():
        said = [events(batch, max_new_tokens=6), *(events([prompt], max_new_tokens=9) for prompt in batch)]
        return [[getattr(event, "text", None) for event in reply] for reply in said], [
            event.features for reply in said for event in reply if isinstance(event, VokenEvent)
        ]

    texts, features = told()
    torch._dynamo.reset()
    reader.language_model.compile(backend=backend)
    made = []
    for _ in range(3):
        again, seen = told()
        assert again == texts
        for ours, theirs in zip(seen, features, strict=True):
            close(ours, theirs)
        made.append(len(graphs))
    if getattr(reader.language_model, "_can_compile_fullgraph", False):
        assert made[1] == made[2]


# Training


@pytest.mark.parametrize("family", ALL)
def test_dropped_subwords_split_prompts_and_no_reply(readers, looks, family):
    reader = readers(family)
    item = [*prompts(reader, looks)[0], assistant(text("A red fox."), image(looks[0]))]
    (whole, split), (scored, scored_too) = zip(
        *(
            (batch["input_ids"][0].tolist(), [label for label in batch["labels"][0].tolist() if label != IGNORE_INDEX])
            for batch in (reader.training_batch([item], subword_dropout=rate) for rate in (0.0, 1.0))
        ),
        strict=True,
    )
    assert len(split) > len(whole) and reader.tokenizer.decode(split) == reader.tokenizer.decode(whole)
    assert scored_too == scored
    assert reader.training_batch([item])["input_ids"][0].tolist() == whole


@pytest.mark.parametrize("family", ALL)
def test_replies_are_learnt_as_they_are_decoded(readers, looks, family):
    reader = readers(family)
    batch = prompts(reader, looks)
    items = [
        [*batch[0], assistant(text("A red fox."), image(looks[0]), text("It sleeps."))],
        [*batch[1], assistant(image(looks[1]))],
    ]
    learnt = reader.training_batch(items)
    assert [picture.size for picture in learnt["targets"]] == [looks[0].size, looks[1].size]
    for row, item in enumerate(items):
        asked = reader.encode([item[:-1]])["input_ids"][0].tolist()
        ids, labels = learnt["input_ids"][row].tolist(), learnt["labels"][row].tolist()
        assert ids[: len(asked)] == asked and set(labels[: len(asked)]) == {IGNORE_INDEX}
        reply = ids[len(asked) : int(learnt["attention_mask"][row].sum())]
        start = reply.index(reader.voken_ids[0])
        assert reply[start : start + N_VOKENS] == reader.voken_ids
        scored = [label for label in labels if label != IGNORE_INDEX]
        assert scored == [token for token in reply if token not in reader.voken_ids[1:-1]]
        spoken = reader.tokenizer.decode(
            [token for token in reply if token not in reader.voken_ids], skip_special_tokens=True
        )
        assert spoken.replace("###", "").split() == (["A", "red", "fox.", "It", "sleeps."] if row == 0 else [])
        ends = reply[-1] in reader.eos_token_ids or reader.tokenizer.decode(reply).endswith(reader.stop_strings)
        assert ends
    # A row among others is the row alone.
    with torch.no_grad():
        together = reader.prefill(parts_of(learnt)).last
        for row, item in enumerate(items):
            alone = reader.prefill(parts_of(reader.training_batch([item]))).last[0]
            close(together[row, : len(alone)], alone)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ALL)
def test_rows_and_adapters_alone_train_and_are_folded_in(build, looks, family, tied):
    reader = build(family, tied)
    model, pipe = reader.model, SimpleNamespace(comprehension=reader.model, reader=reader)
    targets = ("c_attn",) if family == "gpt2" else ("q_proj", "v_proj")
    batch = prompts(reader, looks)
    learnt = reader.training_batch([[*batch[0], assistant(text("A fox."), image(looks[0]))]])
    with torch.no_grad():
        before = reader.logits(reader.prefill(parts_of(learnt)).last)
        train_adapter(pipe, LoraSettings(rank=2, dropout=0.0, targets=targets))
        close(reader.logits(reader.prefill(parts_of(learnt)).last), before)
    loss = reader.logits(reader.prefill(parts_of(learnt)).last).square().mean()
    loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum(name.endswith(".rows") for name in trained) == 2
    assert all(name.endswith(".rows") or "lora_" in name for name in trained) and any(
        "lora_" in name for name in trained
    )
    assert not any("vision" in name or "qformer" in name for name in trained)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        assert (layer.rows.grad.abs().sum(1) > 0).all()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter += 0.3 * torch.randn_like(parameter)
        moved = reader.logits(reader.prefill(parts_of(learnt)).last)
        assert not torch.allclose(moved, before, atol=1e-3)
        fuse_adapter(model)
        torch.testing.assert_close(reader.logits(reader.prefill(parts_of(learnt)).last), moved, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", ALL)
def test_a_prefix_stands_in_front_of_all_that_is_read(build, looks, family):
    reader = build(family)
    pipe = SimpleNamespace(comprehension=reader.model, reader=reader)
    if family in ("paligemma", "gemma3"):
        with pytest.raises(ValueError, match="cannot have a prefix"):
            train_adapter(pipe, prefix_length=3)
        return
    batch = prompts(reader, looks)
    vokens = torch.tensor([reader.voken_ids] * 3)
    with torch.no_grad():
        plain = reader.prefill(reader.encode(batch)).last[:, -1]
        train_adapter(pipe, prefix_length=3)
        inputs, cache = reader.encode(batch), reader.new_cache()
        read = reader.prefill(inputs, cache).last[:, -1]
        told = reader.extend(vokens, torch.ones_like(vokens), cache).last
        assert (read - plain).abs().max() > 1e-3
        close(read, reader.prefill(inputs).last[:, -1])
        for row, prompt in enumerate(batch):
            cache = reader.new_cache()
            close(reader.prefill(reader.encode([prompt]), cache).last[0, -1], read[row])
            close(reader.extend(vokens[:1], torch.ones_like(vokens[:1]), cache).last[0], told[row])
    learnt = reader.training_batch([[*batch[0], assistant(text("A fox."), image(looks[0]))]])
    reader.prefill(parts_of(learnt)).last.square().mean().backward()
    assert reader.model.prefix.states.grad.abs().sum() > 0


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ALL)
def test_saved_and_opened_again_it_reads_the_same(build, looks, tmp_path, family, tied):
    reader = build(family, tied)
    reader.model.save_pretrained(tmp_path)
    reader.processor.save_pretrained(tmp_path)
    if sees(reader):
        kind = type(reader.model) if family == "minigpt4" else AutoModelForImageTextToText
        opened = type(reader.processor) if family in ("minigpt4", "blip2") else AutoProcessor
    else:
        kind, opened = AutoModelForCausalLM, AutoTokenizer
    again = reader_of(kind.from_pretrained(tmp_path).eval(), opened.from_pretrained(tmp_path))
    assert again.voken_ids == reader.voken_ids
    batch = prompts(reader, looks)
    first, second = reader.encode(batch), again.encode(batch)
    assert torch.equal(first["input_ids"], second["input_ids"])
    with torch.no_grad():
        close(again.prefill(second).last, reader.prefill(first).last)


# Words


@pytest.mark.parametrize("family", ALL)
def test_words_that_spell_a_special_token_stay_words(readers, family):
    reader = readers(family)
    specials = {
        number: token.content for number, token in reader.tokenizer.added_tokens_decoder.items() if token.special
    }

    def count(content):
        ids = reader.encode([[user(*content)]])["input_ids"][0].tolist()
        return sum(token in specials for token in ids), ids

    usual, _ = count([text("what is it?")])
    for spelt in specials.values():
        for content in ([text(f"what is {spelt}?")], [text(f"what {spelt[:2]}"), text(f"{spelt[2:]} is it?")]):
            found, ids = count(content)
            assert found == usual, spelt
            assert not {*reader.voken_ids, reader.image_token_id} & set(ids)
    learnt = reader.training_batch([[user(text("x")), assistant(text("I say [IMG0][IMG1] <image> </s>"))]])
    assert not set(reader.voken_ids) & set(learnt["input_ids"][0].tolist())


@pytest.mark.parametrize("family", SEEING)
def test_pictures_that_do_not_match_their_marks_are_counted(readers, looks, family):
    reader = readers(family)
    with pytest.raises(ValueError, match=r"2 image mark\(s\) but 1 image\(s\)"):
        reader.encode(["<ImageHere> and <ImageHere>"], [looks[:1]])
    one = reader.encode(["<ImageHere> What is it?"], [[looks[0]]])
    same = reader.encode([[user(image(looks[0]), text("What is it?"))]])
    assert torch.equal(one["input_ids"], same["input_ids"])


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_who_cannot_see_says_so(readers, looks, family):
    with pytest.raises(ValueError, match="reads no pictures, but the prompt holds 1"):
        readers(family).encode(["What is <ImageHere>?"], [[looks[0]]])


# A cache that is kept


@pytest.mark.parametrize("family", ALL)
def test_what_was_read_is_not_read_again(readers, looks, count_calls, family):
    reader = readers(family)
    asked = [user(text("What do you see?"), *([image(looks[0])] if sees(reader) else []))]
    more = user(text("And here?"), *([image(looks[1])] if sees(reader) else []))
    talk = [*asked, assistant(text("A red fox.")), more]
    towers = [name for name, _ in reader.model.named_modules() if name.split(".")[-1] in TOWERS]
    calls = count_calls(reader.model.get_submodule(towers[0])) if towers else []
    with torch.no_grad():
        cache = ReaderCache()
        reader.prefill(reader.unread(asked, None, cache, CPU), cache)
        vokens = torch.tensor([reader.voken_ids])
        reader.extend(vokens, torch.ones_like(vokens), cache)
        rest = reader.unread(talk, None, cache, CPU)
        kept = len(cache)
        continued = reader.prefill(rest, cache).last[0, -1]
        assert len(calls) == 2 * sees(reader)
        further = reader.extend(vokens, torch.ones_like(vokens), cache).last
        whole, fresh = reader.encode([talk]), reader.new_cache()
        close(continued, reader.prefill(whole, fresh).last[0, -1])
        close(further, reader.extend(vokens, torch.ones_like(vokens), fresh).last)
    # A prompt of which all looks at all is read anew, and so are pictures that are read otherwise than a single one.
    assert (kept > 0) == (family not in ("paligemma", "llava_onevision"))
    assert kept + rest["input_ids"].shape[1] == whole["input_ids"].shape[1]


@pytest.mark.parametrize("family", ["minigpt4", "instructblip", "qwen2_5_vl"])
def test_a_picture_whose_reading_was_broken_off_is_read_the_next_time(readers, looks, family):
    reader = readers(family)
    asked = [user(text("What do you see?"), image(looks[0]))]
    talk = [*asked, assistant(text("A red fox.")), user(text("And here?"), image(looks[1]))]
    with torch.no_grad():
        cache = ReaderCache()
        reader.prefill(reader.unread(asked, None, cache, CPU), cache)
        reader.unread(talk, None, cache, CPU)
        again = reader.prefill(reader.unread(talk, None, cache, CPU), cache)
        close(again.last[0, -1], reader.prefill(reader.encode([talk])).last[0, -1])


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_a_reply_that_is_a_picture_alone_is_an_empty_turn_of_text(readers, looks, family):
    """As long as nothing reads the picture, in templates that want a message's content as a string."""
    reader = readers(family)
    talk = [user(text("Draw a fox.")), assistant(), user(text("And then?"))]
    said = [*talk[:1], assistant(text("A fox.")), *talk[2:]]
    empty, full = (reader.encode([messages])["input_ids"][0] for messages in (talk, said))
    spoken = reader.tokenizer.encode("A fox.", add_special_tokens=False)
    assert len(full) - len(empty) == len(spoken)


@pytest.mark.parametrize("family", [family for family in SEEING if family not in ("minigpt4", "blip2")])
def test_what_a_processor_cannot_take_is_our_error(readers, looks, monkeypatch, family):
    """Of those that are not ours."""
    reader = readers(family)

    def broken(*args, **kwargs):
        raise KeyError("patch")

    monkeypatch.setattr(type(reader.processor.image_processor), "__call__", broken)
    with pytest.raises(ValueError, match="the processor does not take this prompt and its pictures: 'patch'"):
        reader.encode([[user(text("What is it?"), image(looks[0]))]])


def test_what_a_template_cannot_take_is_our_error(build):
    reader = build("qwen2_5_vl")
    reader.chat.template = "{{ 1 + messages[0].role }}"
    with pytest.raises(ValueError, match="the chat template does not take this conversation: unsupported operand"):
        reader.encode([[user(text("What is it?"))]])


def test_pictures_among_words_are_told_from_words_behind_a_prefix(build, looks):
    """A model whose attention looks ahead within pictures, which a prefix would shift by its length."""
    reader = build("gemma3")
    inputs = reader.encode([[user(text("Look."), image(looks[0]), text("What is it?"))]])
    calls = []
    reader.body.register_forward_pre_hook(lambda _, args, kwargs: calls.append(kwargs), with_kwargs=True)
    with torch.no_grad():
        reader.prefill(inputs)
        reader.model.prefix = KeyValuePrefix(reader.config, 3)
        reader.prefill(inputs)
    plain, shifted = (call["token_type_ids"] for call in calls)
    assert plain.sum() == 4
    assert torch.equal(shifted, torch.cat([torch.zeros(1, 3, dtype=plain.dtype), plain], dim=1))


def test_another_picture_or_an_earlier_word_is_read_anew(readers, looks):
    reader = readers("qwen2_5_vl")

    def ask(picture, words):
        return [user(text("Look."), image(picture), text(words))]

    cache = ReaderCache()
    with torch.no_grad():
        for prompt, kept in (
            (ask(looks[0], "What is it?"), False),
            (ask(looks[0], "Who is it?"), True),
            (ask(looks[3], "Who is it?"), False),
            ([user(text("Look!"), image(looks[3]), text("Who is it?"))], False),
        ):
            rest = reader.unread(prompt, None, cache, CPU)
            assert (len(cache) > 0) == kept
            close(reader.prefill(rest, cache).last[0, -1], reader.prefill(reader.encode([prompt])).last[0, -1])
