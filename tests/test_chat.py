"""A conversation with its kept cache: the replies of the pipeline to all that was said, and nothing is read twice."""

import copy

import pytest
import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.joining import new_pipeline
from minigpt5.readers import Reader, ReaderCache
from minigpt5.readers.lora import without_lora
from minigpt5.readers.minigpt4 import MiniGPT4Reader
from minigpt5.storyworld import others
from minigpt5.vokens.adapters import LoraSettings, train_adapter

OPTIONS = {"image_mode": "always", "max_new_tokens": 5, "num_inference_steps": 1, "output_type": "pt"}
SYSTEM = {"role": "system", "content": "You draw foxes."}


@pytest.fixture(scope="session")
def qwen_pipe(tiny_pipe, texts):
    """A reader in the shape of Qwen2.5-VL with the tiny painter, untrained."""
    torch.manual_seed(0)
    processor = others.build_qwen_processor(texts)
    pipe = new_pipeline(others.build_qwen(processor).eval(), processor, tiny_pipe.painter, n_vokens=4, num_layers=1)
    pipe.mapper.eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(params=["minigpt4", "qwen2.5-vl"])
def talker(request, tiny_pipe, qwen_pipe):
    """One pipeline after another, to be left as it is."""
    pipe = {"minigpt4": tiny_pipe, "qwen2.5-vl": qwen_pipe}[request.param]
    assert (type(pipe.reader) is MiniGPT4Reader) == (request.param == "minigpt4")
    return pipe


class Meter:
    """Counts the prompt tokens and the pictures that go through a pipeline's networks in a call."""

    def __init__(self, pipe, count_calls):
        self.pipe = pipe
        body = pipe.comprehension
        self.words = count_calls(pipe.reader.language_model.layers[0])
        self.looks = count_calls(body.vision_model if hasattr(body, "vision_model") else body.model.visual)

    def read(self):
        """Tokens of the call's first forward, which is the prompt's, and pictures; then it starts anew."""
        args, kwargs = self.words[0]
        width = (args[0] if args else kwargs["hidden_states"]).shape[1]
        pictures = 0
        for args, kwargs in self.looks:
            grid = kwargs.get("grid_thw")
            pictures += len(kwargs.get("pixel_values", args[0] if args else None)) if grid is None else len(grid)
        self.words.clear()
        self.looks.clear()
        return width, pictures


@pytest.fixture
def meter(talker, count_calls):
    return Meter(talker, count_calls)


def seeded():
    return torch.Generator().manual_seed(0)


def alike(ours, theirs):
    """The same text, and the same pictures at the same places."""
    assert len(ours.segments[0]) == len(theirs.segments[0])
    for one, other in zip(ours.segments[0], theirs.segments[0], strict=True):
        if isinstance(one, str):
            assert one == other
        else:
            torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def afresh(chat, meter):
    """The reply without a cache to what the chat has answered last, and how many tokens and pictures it reads."""
    reply = chat.pipe(chat.messages[:-1], generator=seeded(), **OPTIONS)
    return reply, *meter.read()


def test_replies_are_those_without_a_cache_and_nothing_is_read_twice(talker, meter, pictures):
    chat = talker.chat([SYSTEM])
    before = 0
    # What was painted is a picture of the next turn.
    for prompt, images, new in (
        ("What do you see? <ImageHere>", pictures[0], 1),
        ("And here? <ImageHere> Or there? <ImageHere>", pictures[1:3], 1 + 2),
        ("Draw it again.", None, 1),
    ):
        ours = chat.reply(prompt, images, generator=seeded(), **OPTIONS)
        width, seen = meter.read()
        assert len(ours.images[0]) == 1
        theirs, length, every = afresh(chat, meter)
        alike(ours, theirs)
        assert seen == new
        assert width <= length - before
        assert every == sum(part["type"] == "image" for m in chat.messages[:-1] for part in m["content"] if m != SYSTEM)
        before = length
    assert [message["role"] for message in chat.messages] == ["system", *["user", "assistant"] * 3]


def test_a_streamed_reply_is_remembered_as_a_whole_one_is(talker, meter, pictures):
    chat, streamed = talker.chat(), talker.chat()
    chat.reply("Look. <ImageHere>", pictures[0], generator=seeded(), **OPTIONS)
    for _ in streamed.stream("Look. <ImageHere>", pictures[0], generator=seeded(), **OPTIONS):
        assert streamed.messages == []
    meter.read()
    ours, theirs = (one.reply("And then?", generator=seeded(), **OPTIONS) for one in (streamed, chat))
    alike(ours, theirs)
    assert meter.read()[1] == 2  # the painted one, by each


def test_the_oldest_turns_go_where_the_context_ends(talker, meter, pictures, monkeypatch):
    chat = talker.chat([SYSTEM])
    chat.reply("Look. <ImageHere>", pictures[0], generator=seeded(), **OPTIONS)
    chat.reply("And here? <ImageHere>", pictures[1], generator=seeded(), **OPTIONS)
    meter.read()
    whole = talker.encode_prompt([[*chat.messages, {"role": "user", "content": "Draw it again."}]])
    room = whole["input_ids"].shape[1] + talker.reader.n_vokens - 1
    with monkeypatch.context() as patch:
        patch.setattr(Reader, "context_length", room)
        ours = chat.reply("Draw it again.", generator=seeded(), **OPTIONS)
    assert meter.read()[1] == 2  # of the second turn, and what was painted then
    assert [message["role"] for message in chat.messages] == ["system", *["user", "assistant"] * 2]
    theirs, length, _ = afresh(chat, meter)
    alike(ours, theirs)
    # From there on nothing is read twice again.
    ours = chat.reply("And again.", generator=seeded(), **OPTIONS)
    width, seen = meter.read()
    theirs, longer, _ = afresh(chat, meter)
    alike(ours, theirs)
    assert seen == 1
    assert width <= longer - length


def test_nothing_is_forgotten_for_another_reason(qwen_pipe, monkeypatch):
    before = [{"role": "user", "content": "Look."}]
    chat = qwen_pipe.chat(before)
    template = "{% if messages|length > 1 %}{{ raise_exception('one turn only') }}{% endif %}"
    monkeypatch.setattr(qwen_pipe.reader.chat, "template", template)
    with pytest.raises(ValueError, match="the chat template does not take this conversation: one turn only"):
        chat.reply("Draw a fox.", **OPTIONS)
    assert chat.messages == before


def test_an_edited_history_is_read_from_the_edit_on(talker, meter, pictures):
    chat = talker.chat()
    chat.reply("Look. <ImageHere>", pictures[0], generator=seeded(), **OPTIONS)
    chat.reply("And here? <ImageHere>", pictures[1], generator=seeded(), **OPTIONS)
    meter.read()
    # The last turn is said in other words, behind its pictures: these are known.
    *chat.messages, asked, _ = chat.messages
    assert asked["content"][0] == {"type": "text", "text": "And here?"}
    ours = chat.reply("And here? <ImageHere> Who sleeps there?", pictures[1], generator=seeded(), **OPTIONS)
    assert meter.read()[1] == 0
    alike(ours, afresh(chat, meter)[0])
    # Another first picture: all of them are read.
    chat.messages[0]["content"][1]["image"] = pictures[3]
    ours = chat.reply("And then?", generator=seeded(), **OPTIONS)
    assert meter.read()[1] == 4  # two of the user's, two that were painted
    alike(ours, afresh(chat, meter)[0])


def test_a_turn_that_is_refused_leaves_the_conversation_as_it_was(talker, pictures):
    chat = talker.chat()
    chat.reply("Look. <ImageHere>", pictures[0], generator=seeded(), **OPTIONS)
    messages = list(chat.messages)
    for prompt, images, options in (
        ("<ImageHere> and <ImageHere>", pictures[0], {}),
        ("", None, {}),
        ("Draw it again.", None, {"temperature": "hot"}),
        ("Draw it again.", None, {"output_type": "latent"}),
    ):
        with pytest.raises((TypeError, ValueError)):
            chat.reply(prompt, images, **OPTIONS | options)
        assert chat.messages == messages
    ours = chat.reply("Draw it again.", generator=seeded(), **OPTIONS)
    alike(ours, talker(chat.messages[:-1], generator=seeded(), **OPTIONS))


@pytest.fixture
def changeable(talker):
    """A pipeline with weights of its own."""
    parts = {
        name: copy.deepcopy(part) if isinstance(part, torch.nn.Module) else part
        for name, part in talker.components.items()
    }
    pipe = MiniGPT5Pipeline(**parts, guidance_scale=2.5, num_inference_steps=1)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def heavier(pipe):
    with torch.no_grad():
        pipe.reader.language_model.layers[0].self_attn.q_proj.weight.mul_(3)


@pytest.mark.parametrize(
    "change",
    [heavier, lambda pipe: pipe.to(torch.float64), train_adapter, lambda pipe: train_adapter(pipe, prefix_length=3)],
    ids=["weights", "dtype", "adapter", "prefix"],
)
def test_a_cache_of_another_model_is_refused_but_a_chat_goes_on(changeable, change):
    pipe, cache, chat = changeable, ReaderCache(), changeable.chat()
    pipe("Draw a fox.", prompt_cache=cache, **OPTIONS)
    chat.reply("Draw a fox.", **OPTIONS)
    change(pipe)
    with pytest.raises(ValueError, match="the prompt_cache was filled by another model"):
        pipe("Draw a fox.", prompt_cache=cache, **OPTIONS)
    for prompt in ("And again.", "And then?"):
        ours = chat.reply(prompt, generator=seeded(), **OPTIONS)
        alike(ours, pipe(chat.messages[:-1], generator=seeded(), **OPTIONS))


def test_a_picture_that_would_look_otherwise_is_read_again(tiny_pipe, pictures, monkeypatch):
    cache, asked = ReaderCache(), ("What is it?<ImageHere>", pictures[0])
    tiny_pipe(*asked, prompt_cache=cache, **OPTIONS)
    before = list(cache.pictures)
    monkeypatch.setattr(tiny_pipe.processor.image_processor, "image_mean", [0.0, 0.0, 0.0])
    ours, theirs = (tiny_pipe(*asked, prompt_cache=kept, generator=seeded(), **OPTIONS) for kept in (cache, None))
    alike(ours, theirs)
    assert cache.pictures != before


def test_a_template_or_an_end_that_is_changed_counts_from_the_next_call_on(qwen_pipe, monkeypatch):
    pipe, tokenizer = qwen_pipe, qwen_pipe.processor.tokenizer
    assert pipe("Draw a fox.", image_mode="never", max_new_tokens=4).text[0]
    monkeypatch.setattr(pipe.comprehension.generation_config, "eos_token_id", [*range(len(tokenizer))])
    assert pipe("Draw a fox.", image_mode="never", max_new_tokens=4).text[0] == ""
    monkeypatch.setattr(pipe.processor, "chat_template", "{{ messages[0].content[0].text }} And so on.")
    assert tokenizer.decode(pipe.encode_prompt(["Draw a fox."])["input_ids"][0]) == "<s> Draw a fox. And so on."


def test_without_return_dict_a_reply_is_a_tuple_and_remembered(tiny_pipe):
    chat = tiny_pipe.chat()
    text, images, segments = chat.reply("Draw a fox.", return_dict=False, **OPTIONS)
    assert len(text) == len(images) == 1
    said = [part.get("text", part.get("image")) for part in chat.messages[-1]["content"]]
    assert all(one is other for one, other in zip(said, segments[0], strict=True))


def test_what_was_read_without_an_adapter_is_read_again_with_it(tiny_pipe):
    pipe = MiniGPT5Pipeline(
        **tiny_pipe.components | {"comprehension": copy.deepcopy(tiny_pipe.comprehension)}, num_inference_steps=1
    )
    pipe.set_progress_bar_config(disable=True)
    train_adapter(pipe, lora=LoraSettings())
    for name, weight in pipe.comprehension.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    pipe.comprehension.requires_grad_(False)
    chat = pipe.chat()
    with without_lora(pipe.comprehension):
        chat.reply("Draw a fox.", **OPTIONS)
    ours = chat.reply("And again.", generator=seeded(), **OPTIONS)
    alike(ours, pipe(chat.messages[:-1], generator=seeded(), **OPTIONS))


def test_a_stream_whose_cache_another_call_has_used_is_refused(talker, pictures):
    options = OPTIONS | {"image_mode": "never"}
    cache = ReaderCache()
    late, begun = (talker.stream("Draw a fox.", prompt_cache=cache, **options) for _ in range(2))
    next(begun)
    ours = talker("What is it?<ImageHere>", pictures[0], prompt_cache=cache, generator=seeded(), **options)
    for stream in (late, begun):
        with pytest.raises(RuntimeError, match="another call has used this prompt_cache"):
            list(stream)
    alike(ours, talker("What is it?<ImageHere>", pictures[0], generator=seeded(), **options))
    # Nothing of them is in it: what comes after is read behind what the call has read.
    asked = {"generator": seeded(), **options}
    alike(talker("What is that?", prompt_cache=cache, **asked), talker("What is that?", **asked))


def test_a_cache_is_one_reader_s(tiny_pipe, qwen_pipe):
    cache = ReaderCache()
    tiny_pipe("Draw a fox.", prompt_cache=cache, **OPTIONS)
    with pytest.raises(ValueError, match="start with a new ReaderCache"):
        qwen_pipe("Draw a fox.", prompt_cache=cache, **OPTIONS)
    with pytest.raises(ValueError, match="a prompt_cache is of one prompt, got 2"):
        tiny_pipe(["Draw a fox."] * 2, prompt_cache=cache, **OPTIONS)
    for wrong in ({}, "cache", cache.states):
        with pytest.raises(TypeError, match="prompt_cache must be a ReaderCache, got"):
            tiny_pipe("Draw a fox.", prompt_cache=wrong, **OPTIONS)
