"""Interleaved decoding by a scripted language model: what is fed, what is kept, what is said."""

from collections import Counter

import pytest
import torch

from minigpt5 import DecodingConfig
from minigpt5.readers import reader_of
from minigpt5.readers.minigpt4 import embed_prompt, last_hidden_states
from minigpt5.vokens.decoding import InterleavedDecoder, TextEvent, VokenEvent, _Row, decode_texts

FREE = None


@pytest.fixture
def model(tiny_pipe):
    return tiny_pipe.comprehension


@pytest.fixture
def processor(tiny_processor):
    return tiny_processor


@pytest.fixture
def IMAGE(tiny_processor):
    return tiny_processor.voken_ids[0]


@pytest.fixture
def decode(model, processor):
    """Decode prompts; returns for each row its text, its pictures' features, and its events."""

    def run(prompts, images=None, generator=None, **settings):
        prompts = [prompts] if isinstance(prompts, str) else prompts
        decoder = InterleavedDecoder(reader_of(model, processor), DecodingConfig(**settings), generator)
        events = list(decoder.events(processor(prompts, images)))
        rows = []
        for row in range(len(prompts)):
            own = [event for event in events if event.row == row]
            text = "".join(event.text if isinstance(event, TextEvent) else "|" for event in own)
            features = [event.features for event in own if isinstance(event, VokenEvent)]
            rows.append((text, features, own))
        return rows

    return run


# What goes through the language model


def test_forwards_are_the_text_tokens_and_one_a_picture(decode, script, count_calls, model, IMAGE):
    (line,) = script(["a red fox", IMAGE, "in the", IMAGE, "forest"])
    calls = count_calls(model.language_model.model)
    ((_, features, _),) = decode("go on", max_images=2)
    # The end of the reply is chosen as a token too.
    text_tokens = len(line) - 2 + 1
    assert len(calls) == text_tokens + 2 and len(features) == 2


def test_a_block_goes_through_in_one_forward(decode, script, count_calls, model, IMAGE):
    script(["a", IMAGE, "b"])
    calls = count_calls(model.language_model.model)
    decode("go on")
    widths = [kwargs["inputs_embeds"].shape[1] for _, kwargs in calls]
    assert Counter(widths[1:]) == {1: len(widths) - 2, 8: 1}


def test_features_are_those_of_one_teacher_forced_forward(decode, script, model, processor, IMAGE, pictures):
    script(["a red", IMAGE, "fox", IMAGE])
    prompt = "what is <ImageHere> here?"
    ((_, features, _),) = decode([prompt], [[pictures[0]]], max_images=2)

    tokenizer, inputs = processor.tokenizer, processor([prompt], [[pictures[0]]])
    red, fox = (tokenizer.encode(said, add_special_tokens=False) for said in ("a red", "fox"))
    said = [*red, *processor.voken_ids, *fox, *processor.voken_ids]
    ids = torch.cat([inputs["input_ids"], torch.tensor([said])], dim=1)
    with torch.no_grad():
        states = last_hidden_states(model, embed_prompt(model, ids, inputs["pixel_values"]), torch.ones_like(ids))[0]
    length = inputs["input_ids"].shape[1]
    for block, start in zip(features, (length + len(red), length + len(red) + 8 + len(fox)), strict=True):
        assert torch.allclose(block, states[start - 1 : start + 7], atol=1e-5)


# What is said


def test_text_goes_on_after_a_picture(decode, script, IMAGE):
    script(["a red fox", IMAGE, "in the forest", IMAGE, "at night"])
    assert decode("go on", max_images=2)[0][0] == "a red fox|in the forest|at night"


def test_no_more_pictures_than_allowed(decode, script, IMAGE):
    script([IMAGE, FREE, IMAGE, FREE, IMAGE, FREE])
    assert len(decode("go on", max_images=2, max_new_tokens=6)[0][1]) == 2


@pytest.mark.parametrize("settings", [{"image_mode": "never"}, {"max_images": 0}])
def test_pictures_can_be_forbidden(decode, script, IMAGE, settings):
    script([IMAGE] * 4)
    assert not decode("go on", max_new_tokens=4, **settings)[0][1]


def test_auto_leaves_pictures_to_the_model(decode, script, IMAGE):
    script(["a fox"], ["a fox", IMAGE])
    assert [len(features) for _, features, _ in decode(["go on", "go on"])] == [0, 1]


@pytest.mark.parametrize("end", [[], ["###"], ["#", "+##"], [FREE] * 9])
def test_always_ends_a_reply_with_the_picture_it_owes(decode, script, processor, end):
    script(["a red fox", *end])
    fox = len(processor.tokenizer.encode("a red fox", add_special_tokens=False))
    budget = fox + 1 if FREE in end else 20
    text, features, _ = decode("go on", image_mode="always", max_new_tokens=budget)[0]
    assert text == "a red fox|" and len(features) == 1


def test_always_owes_no_second_picture(decode, script, IMAGE):
    script(["a", IMAGE, "fox"])
    assert decode("go on", image_mode="always", max_images=3)[0][0] == "a|fox"


def test_a_picture_as_the_last_choice_is_completed(decode, script, count_calls, model, IMAGE):
    (line,) = script(["a fox", IMAGE, "never said"])
    budget = line.index(IMAGE) + 1
    text, (features,), _ = decode("go on", max_new_tokens=budget)[0]
    assert text == "a fox|" and features.shape == (8, model.config.text_config.hidden_size)


def test_the_budget_counts_choices(decode, script, count_calls, model):
    script([FREE] * 20)
    calls = count_calls(model.language_model.model)
    decode("go on", max_new_tokens=5)
    assert len(calls) <= 5


@pytest.mark.parametrize("stop", [["###"], ["##", "+#"], ["+###"], ["####"]])
def test_a_stop_string_ends_the_reply_and_is_not_said(decode, script, stop):
    script(["a red fox.", *stop, "Human: more"])
    assert decode("go on")[0][0] == "a red fox."


def test_the_first_of_several_stop_strings_counts(decode, script):
    script(["a red fox in the forest"])
    assert decode("go on", stop_strings=("forest", "fox"))[0][0] == "a red"
    script(["a red fox in the forest"])
    assert decode("go on", stop_strings="fox")[0][0] == "a red"


def test_what_only_began_as_a_stop_string_is_said(decode, script):
    script(["one # two ## three"])
    assert decode("go on")[0][0] == "one # two ## three"


def test_specials_are_not_said(decode, script, processor):
    tokenizer = processor.tokenizer
    script(["a red", tokenizer.bos_token_id, tokenizer.pad_token_id, "fox"])
    assert decode("go on")[0][0].split() == ["a", "red", "fox"]


def test_characters_of_many_bytes_are_said_whole(decode, script):
    script(["é 狐 fox"])
    text, _, events = decode("go on")[0]
    assert text == "é 狐 fox" and not any("\ufffd" in event.text for event in events)


def test_events_come_as_the_text_grows(decode, script):
    script(["a red fox in the forest"])
    _, _, events = decode("go on")[0]
    assert len(events) > 3


def test_inner_vokens_and_the_image_mark_are_never_chosen(decode, script, processor):
    forbidden = [*processor.voken_ids[1:], processor.image_token_id]
    script(forbidden)
    text, features, _ = decode("go on", max_new_tokens=len(forbidden))[0]
    assert not features and "IMG" not in text and "ImageHere" not in text


def test_marks_are_words_where_the_published_behaviour_is_asked_for(decode, script, processor, IMAGE):
    inner, mark = processor.voken_ids[3], processor.image_token_id
    script(["a red", inner, mark, "fox", IMAGE, "at", inner, "night"])
    text, features, events = decode("go on", suppress_marks=False)[0]
    assert text == "a red [IMG3] <ImageHere> fox|at [IMG3] night" and len(features) == 1
    assert len(events) > 3


@pytest.mark.parametrize("around", ["", " \n\t\r "])
def test_white_space_around_a_reply_is_no_part_of_it_but_other_control_characters_are(tiny_pipe, script, around):
    script([f"{around}\x1fa\x7f\x1c{around}"])
    asked = {"max_new_tokens": 20, "image_mode": "never"}
    assert tiny_pipe("go on", **asked).text == ["\x1fa\x7f\x1c"]
    script([f"{around}\x1fa\x7f\x1c{around}"])
    assert "".join(event.text for event in tiny_pipe.stream("go on", **asked)).strip(" \n\t\r") == "\x1fa\x7f\x1c"


@pytest.mark.parametrize("picks", ["largest", "second"])
def test_who_chooses_is_given_the_probabilities_that_the_filters_leave(model, processor, picks):
    seen = []

    def choose(shares):
        seen.append(shares)
        return shares.topk(2).indices[:, ["largest", "second"].index(picks)]

    def said(config, chooser=None):
        decoder = InterleavedDecoder(reader_of(model, processor), config, choose=chooser)
        events = decoder.events(processor("go on"))
        return "".join(event.text for event in events if isinstance(event, TextEvent))

    greedy = {"max_new_tokens": 5, "image_mode": "never"}
    chosen = said(DecodingConfig(do_sample=True, top_k=3, top_p=1.0, **greedy), choose)
    assert (chosen == said(DecodingConfig(**greedy))) == (picks == "largest")
    assert all((shares > 0).sum() == 3 and shares.sum().isclose(torch.tensor(1.0)) for shares in seen)


# How tokens are chosen


def sampled(decode, seed=0, prompts="go on", **settings):
    seeded = [torch.Generator().manual_seed(number) for number in (seed if isinstance(seed, list) else [seed])]
    generator = seeded if isinstance(seed, list) else seeded[0]
    rows = decode(prompts, generator=generator, do_sample=True, max_new_tokens=8, **settings)
    return [text for text, _, _ in rows]


def test_sampling_repeats_with_its_generator(decode):
    assert sampled(decode, 1, top_k=0, top_p=1.0) == sampled(decode, 1, top_k=0, top_p=1.0)
    assert sampled(decode, 1, top_k=0, top_p=1.0) != sampled(decode, 2, top_k=0, top_p=1.0)


@pytest.mark.parametrize("narrow", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4, "top_k": 0, "top_p": 1.0}])
def test_narrow_sampling_is_greedy(decode, narrow):
    assert sampled(decode, **narrow) == [decode("go on", max_new_tokens=8)[0][0]]


def test_a_temperature_of_0_is_what_models_have_that_do_not_sample(decode):
    assert decode("go on", temperature=0.0, top_p=0.0) == decode("go on")


def test_repetition_penalty_forbids_what_was_said(model, processor):
    a, b = processor.tokenizer.encode("ab", add_special_tokens=False)[-2:]

    def ids(penalty):
        decoder = InterleavedDecoder(reader_of(model, processor), DecodingConfig(repetition_penalty=penalty))
        logits = torch.full((1, len(processor.tokenizer)), 0.0)
        logits[0, a], logits[0, b] = 2.0, 1.5
        return decoder._choose(logits, [_Row(decoder, 0, length=1, history=[a])])

    assert ids(1.0) == [a] and ids(2.0) == [b]


def test_a_list_of_generators_makes_rows_independent(decode):
    prompts, settings = ["go on", "tell me of a red fox"], {"top_k": 0, "top_p": 1.0}
    together = sampled(decode, [5, 6], prompts, **settings)
    assert together[:1] == sampled(decode, [5], prompts[:1], **settings)
    assert together[1:] == sampled(decode, [6], prompts[1:], **settings)


def test_a_row_that_ended_leaves_its_generator_alone(decode, script):
    script(["a"], ["a red fox in the forest at night"])
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    decode(["go on", "go on"], generator=generators, do_sample=True)
    script(["a"])
    alone = torch.Generator().manual_seed(0)
    decode("go on", generator=[alone], do_sample=True)
    assert torch.equal(generators[0].get_state(), alone.get_state())


# Rows of a batch


def test_a_row_alone_equals_the_same_row_among_others(decode, script, pictures, IMAGE):
    prompts = ["short", "a <ImageHere> much longer prompt than all of the others are", "look <ImageHere> here"]
    images = [[], [pictures[0]], [pictures[1]]]
    lines = [
        ["a red fox", FREE, FREE, IMAGE, FREE, "at night"],
        [IMAGE, FREE, "and", FREE, IMAGE],
        ["no picture", FREE],
    ]
    script(*lines)
    together = decode(prompts, images, max_images=2)
    for i, line in enumerate(lines):
        script(line)
        text, features, _ = decode([prompts[i]], [images[i]], max_images=2)[0]
        assert together[i][0] == text
        assert len(together[i][1]) == len(features)
        for one, other in zip(together[i][1], features, strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_pictures_that_end_replies_are_all_painted_whatever_row_ends_first(decode, script):
    script(["a"], ["a red fox"], ["a red fox in the forest"])
    rows = decode(["go on"] * 3, image_mode="always")
    assert [text for text, _, _ in rows] == ["a|", "a red fox|", "a red fox in the forest|"]


def test_free_rows_choose_alone_what_they_choose_together(decode):
    prompts = ["a fox", "tell me what happens next to the red fox in the dark forest"]
    together = [text for text, _, _ in decode(prompts, max_new_tokens=12)]
    assert together == [decode(prompt, max_new_tokens=12)[0][0] for prompt in prompts]


def test_a_row_that_ended_says_no_more(decode, script):
    script(["a"], ["a red fox in the forest"])
    assert [text for text, _, _ in decode(["go on", "go on"])] == ["a", "a red fox in the forest"]


def test_text_replies_come_in_order_whatever_the_batch_size(model, processor):
    prompts = [[{"role": "user", "content": word}] for word in ("fox", "a red cat", "in the forest")]
    small, large = (decode_texts(reader_of(model, processor), prompts, size, max_new_tokens=6) for size in (2, 50))
    assert small == large


# Settings


@pytest.mark.parametrize(
    "wrong",
    [
        {"image_mode": "sometimes"},
        {"max_new_tokens": 0},
        {"max_images": -1},
        {"top_k": -1},
        {"top_p": 0.0, "do_sample": True},
        {"top_p": 1.1},
        {"temperature": 0.0, "do_sample": True},
        {"temperature": -0.1},
        {"repetition_penalty": 0.0},
        {"image_mode": "always", "max_images": 0},
        {"temperature": float("inf")},
        {"stop_strings": ("",)},
    ],
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DecodingConfig(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_new_tokens": 3.0},
        {"do_sample": 1},
        {"top_k": True},
        {"stop_strings": 3},
        {"image_mode": None},
        {"suppress_marks": 0},
    ],
)
def test_settings_of_another_kind_are_refused(wrong):
    with pytest.raises(TypeError, match=next(iter(wrong))):
        DecodingConfig(**wrong)


def test_an_offloaded_model_leaves_the_device_while_a_picture_is_painted(decode, script, model, IMAGE, monkeypatch):
    moves = []
    for name in ("bring_to_device", "take_off_device"):
        monkeypatch.setattr(f"minigpt5.vokens.decoding.{name}", lambda whose, name=name: moves.append((name, whose)))
    script(["a", IMAGE, "b", IMAGE, "c"])
    decode("go on", max_images=2)
    assert moves == [("bring_to_device", model), ("take_off_device", model)] * 3
