"""Prompts and pictures to ids and pixels."""

import copy
from dataclasses import replace

import pytest
import torch

from minigpt5 import MiniGPT5Processor
from minigpt5.readers.processor import IGNORE_INDEX
from minigpt5.readers.prompts import Example, Mark


@pytest.fixture
def processor(tiny_processor):
    return tiny_processor


def text(part):
    return {"type": "text", "text": part}


def image(picture=None):
    return {"type": "image", "image": picture} if picture is not None else {"type": "image"}


def user(*parts):
    return {"role": "user", "content": list(parts)}


def assistant(*parts):
    return {"role": "assistant", "content": list(parts)}


def words(processor, ids):
    """Ids as text, each picture's image tokens as one mark."""
    run = processor.tokenizer.decode([processor.image_token_id] * processor.num_query_tokens)
    return processor.tokenizer.decode(ids).replace(run, "@")


def special(processor, batch):
    return set(batch["input_ids"].flatten().tolist()) & {*processor.voken_ids, processor.image_token_id}


def test_a_string_with_marks_keeps_text_and_pictures_in_order(processor, pictures):
    batch = processor("a cat <ImageHere> and <ImageHere> a dog", images=pictures[:2])
    ids = batch["input_ids"][0].tolist()
    assert ids[0] == processor.tokenizer.bos_token_id
    assert ids.count(processor.image_token_id) == 2 * processor.num_query_tokens
    shown = words(processor, ids[1:]).replace(" ", "")
    assert shown == "###Human:acat<Img>@</Img>and<Img>@</Img>adog###Assistant:"
    assert batch["pixel_values"].shape == (2, 3, 64, 64)


def test_chat_is_minigpt4s_template(processor, pictures):
    chat = [user(text("What is this?"), image(pictures[0])), assistant(text("A cat.")), user(text("Where?"))]
    shown = words(processor, processor(chat)["input_ids"][0, 1:].tolist())
    assert shown.replace(" ", "") == "###Human:Whatisthis?<Img>@</Img>###Assistant:Acat.###Human:Where?###Assistant:"


def test_a_system_message_may_be_a_string_or_parts(processor):
    def system(content):
        return processor([{"role": "system", "content": content}, user(text("Hello."))])["input_ids"].tolist()

    assert system("Be kind.") == system([text("Be kind.")])
    assert "Be kind." in processor.tokenizer.decode(system("Be kind.")[0])


def test_a_string_s_turn_equals_the_same_chat(processor, pictures):
    chat = [user(text("What is"), image(), text("here?"))]
    assert processor.user_turn("What is <ImageHere> here?") == chat
    first, second = processor("What is <ImageHere> here?", pictures[0]), processor(chat, pictures[0])
    assert first["input_ids"].tolist() == second["input_ids"].tolist()


def test_pictures_of_a_string_without_marks_stand_in_front(processor, pictures):
    for count in (1, 2):
        bare, marked = (processor(f"{marks}what?", pictures[:count]) for marks in ("", "<ImageHere>" * count))
        assert bare["input_ids"].tolist() == marked["input_ids"].tolist()
    batch = processor(["a", "b"], [pictures[0], None])
    alone = processor("<ImageHere>a", pictures[0])["input_ids"][0].tolist()
    assert batch["input_ids"][0].tolist()[-len(alone) :] == alone


def test_turns_that_are_written_out_are_taken_as_they_are(processor, pictures):
    written = "Be kind.###Human: <Img><ImageHere></Img> what? ###Assistant:"
    example = Example(["Be kind.###Human: <Img>", Mark.IMAGE, "</Img> what? ###Assistant:"], images=pictures[:1])
    assert processor(written, pictures[0])["input_ids"].tolist() == processor(example)["input_ids"].tolist()


def test_one_prompt_and_a_batch_of_one_are_the_same(processor, pictures):
    one, batch = processor("a <ImageHere>", images=pictures[0]), processor(["a <ImageHere>"], images=[[pictures[0]]])
    assert one["input_ids"].tolist() == batch["input_ids"].tolist()
    assert torch.equal(one["pixel_values"], batch["pixel_values"])


def test_pictures_of_a_batch_are_in_the_order_of_their_marks(processor, pictures):
    mixed = [
        "a <ImageHere> b <ImageHere>",
        [user(text("none"))],
        [user(image(pictures[2]), image())],
    ]
    pixels = processor(mixed, images=[pictures[:2], None, pictures[3]])["pixel_values"]
    alone = torch.cat([processor("<ImageHere>", images=picture)["pixel_values"] for picture in pictures])
    assert torch.equal(pixels, alone)


def test_a_batch_without_pictures_has_no_pixels(processor):
    assert "pixel_values" not in processor(["a cat", "a dog"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_goes_to_the_side_asked_for(processor, side):
    batch = processor(["a cat", "a cat by the sea at night"], padding_side=side)
    mask = batch["attention_mask"][0].tolist()
    assert mask == sorted(mask, reverse=side == "right") and 0 in mask
    assert (batch["input_ids"][batch["attention_mask"] == 0] == processor.tokenizer.pad_token_id).all()


def test_generation_pads_left_by_default(processor):
    assert processor(["a", "a cat by the sea"])["attention_mask"][0, 0] == 0


@pytest.mark.parametrize("spelt", ["[IMG0]", "[IMG7]", "<ImageHere>", "</s>", "<s>"])
def test_words_of_a_chat_never_become_special_tokens(processor, spelt):
    ids = processor([user(text(f"what is {spelt}?"))])["input_ids"][0].tolist()
    assert not set(ids[1:]) & {*processor.voken_ids, processor.image_token_id, *processor.tokenizer.all_special_ids}
    assert spelt in processor.tokenizer.decode(ids)


@pytest.mark.parametrize("odd", ["\ufdd0", "\ufdd1", "\ufdd0\ufdd1", "\ufdd0\ufdd0\ufdd1", "\ufdd0<ImageHere>\ufdd1"])
def test_a_text_is_written_as_it_was_typed_whatever_its_characters(processor, odd):
    typed = f"{odd}<ImageHere>{odd} a <ImageHere>"
    assert processor.apply_chat_template([user(text(typed))]) == f"###Human: {typed} "
    written, _ = processor.render([user(text(typed), text(odd))])
    assert written == [f"###Human: {typed} {odd} ###Assistant:"]


def test_texts_that_spell_a_mark_between_them_are_no_picture(processor):
    joined = "{% for part in messages[0].content %}{{ part.text }}{% endfor %}"
    with pytest.raises(ValueError, match=r"writes 1 picture\(s\) of a conversation that has 0"):
        processor.apply_chat_template([user(text("<Image"), text("Here>"))], joined)


def test_vokens_spelt_in_a_string_never_become_vokens(processor):
    assert not special(processor, processor("say [IMG0][IMG1] now"))


def test_plain_encoding_still_knows_the_vokens_afterwards(processor):
    processor([user(text("[IMG0]"))])
    assert processor.tokenizer.encode("[IMG0]", add_special_tokens=False) == [processor.voken_ids[0]]


@pytest.mark.parametrize(("marks", "given"), [(2, 1), (1, 2), (1, 0)])
def test_pictures_that_do_not_match_the_marks_are_counted(processor, pictures, marks, given):
    with pytest.raises(ValueError, match=rf"{marks} image mark\(s\) but {given} image\(s\)"):
        processor("look " + "<ImageHere> " * marks, images=pictures[:given])


def test_a_picture_twice_given_is_refused(processor, pictures):
    with pytest.raises(ValueError, match=r"0 image mark\(s\) but 1 image\(s\)"):
        processor([user(image(pictures[0]))], images=pictures[0])


def test_a_batch_needs_a_list_of_pictures_for_each_prompt(processor, pictures):
    with pytest.raises(ValueError, match="2 prompts need 2 lists of images, got 1"):
        processor(["a <ImageHere>", "b"], images=[pictures[:1]])


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ({"role": "narrator", "content": "x"}, "got 'narrator'"),
        ({"role": "user", "content": [{"type": "video"}]}, "got 'video'"),
    ],
)
def test_unknown_roles_and_contents_are_refused(processor, message, says):
    with pytest.raises(ValueError, match=says):
        processor([message])


def test_saving_keeps_everything(processor, pictures, tmp_path):
    own = MiniGPT5Processor(processor.image_processor, processor.tokenizer, 5, 4, system="Be kind.")
    own.save_pretrained(tmp_path)
    again = MiniGPT5Processor.from_pretrained(tmp_path)
    assert (again.num_query_tokens, again.n_vokens, again.system) == (5, 4, "Be kind.")
    assert (again.voken_ids, again.image_token_id) == (own.voken_ids, own.image_token_id)
    chat = [user(text("say [IMG0] to"), image(pictures[0]))]
    first, second = own(chat), again(chat)
    assert first["input_ids"].tolist() == second["input_ids"].tolist()
    assert torch.equal(first["pixel_values"], second["pixel_values"])


def learn(processor, *conversations):
    batch = processor.training_batch(list(conversations))
    scored = [[i for i in row if i != IGNORE_INDEX] for row in batch["labels"].tolist()]
    return batch, scored


def test_scored_are_the_reply_the_ends_of_a_block_and_the_close(processor, pictures):
    batch, (scored,) = learn(processor, [user(text("Go on.")), assistant(text("A cat sits."), image(pictures[0]))])
    encode = processor.tokenizer.encode
    close = encode("###", add_special_tokens=False)
    said = encode("A cat sits.", add_special_tokens=False)
    assert scored == [*said, processor.voken_ids[0], processor.voken_ids[-1], *close]
    target = batch["input_ids"][0, -len(said) - 8 - len(close) :].tolist()
    assert target == [*said, *processor.voken_ids, *close]


def test_scored_text_stands_where_it_is_read(processor, pictures):
    batch, _ = learn(
        processor,
        [user(text("What is"), image(pictures[0])), assistant(text("A cat."))],
        [user(text("Go on and on and on.")), assistant(text("It goes."), image(pictures[1]))],
    )
    ids, labels = batch["input_ids"], batch["labels"]
    assert torch.equal(labels[labels != IGNORE_INDEX], ids[labels != IGNORE_INDEX])
    assert (labels[batch["attention_mask"] == 0] == IGNORE_INDEX).all()
    mask = batch["attention_mask"].tolist()
    assert mask == [sorted(row, reverse=True) for row in mask] and 0 in mask[0] + mask[1]


def test_prompt_tokens_are_never_scored(processor, pictures):
    question = [user(text("What is"), image(pictures[0])), assistant(text("A dog.")), user(text("Sure?"))]
    length = processor(question)["input_ids"].shape[1]
    batch, _ = learn(processor, [*question, assistant(text("A cat."))])
    assert (batch["labels"][0, :length] == IGNORE_INDEX).all()
    assert (batch["labels"][0, length:] != IGNORE_INDEX).all()
    assert batch["input_ids"][0, :length].tolist() == processor(question)["input_ids"][0].tolist()


def test_targets_come_in_order_and_are_not_read(processor, pictures):
    batch, _ = learn(
        processor,
        [user(image(pictures[0])), assistant(image(pictures[1]), text("and"), image(pictures[2]))],
        [user(text("x")), assistant(image(pictures[3]))],
    )
    assert [target.tobytes() for target in batch["targets"]] == [picture.tobytes() for picture in pictures[1:]]
    assert batch["pixel_values"].shape[0] == 1


def test_words_of_a_reply_never_become_vokens(processor):
    batch, _ = learn(processor, [user(text("x")), assistant(text("I say [IMG0] <ImageHere>"))])
    assert not special(processor, batch)


def test_a_ready_made_example_is_encoded_as_the_same_conversation(processor, pictures):
    talk = [user(text("What is"), image(pictures[0])), assistant(text("A cat."), image(pictures[1]))]
    source = ["###Human: What is <Img>", Mark.IMAGE, "</Img> ###Assistant:"]
    ready = Example(source, ["A cat. ", Mark.VOKENS, " ###"], [pictures[0]], [pictures[1]])
    (first, second) = (processor.training_batch([item]) for item in (talk, ready))
    assert first.keys() == second.keys()
    for name in ("input_ids", "labels", "pixel_values"):
        assert torch.equal(first[name], second[name])
    assert first["targets"] == second["targets"]


def test_an_example_s_pictures_are_counted(processor, pictures):
    with pytest.raises(ValueError, match=r"the reply paints 1 picture\(s\) but has 0"):
        processor.training_batch([Example(["x"], [Mark.VOKENS])])
    with pytest.raises(ValueError, match=r"1 image mark\(s\) but 2 image\(s\)"):
        processor.training_batch([Example([Mark.IMAGE], ["x"], pictures[:2])])


def test_an_example_as_prompt_is_its_source(processor, pictures):
    example = Example(["It was night.", Mark.IMAGE, "Then"], [Mark.VOKENS], images=pictures[:1])
    batch = processor(example)
    before, after = (processor.encode([piece]) for piece in ("It was night.", "Then"))
    assert batch["input_ids"].tolist() == [[*before, *[processor.image_token_id] * 8, *after[1:]]]
    assert batch["pixel_values"].shape[0] == 1
    with pytest.raises(ValueError, match="1 image mark"):
        processor(replace(example, images=()))


# As processors of transformers do


def test_options_are_those_of_transformers_processors(processor, pictures):
    prompts = ["a cat", "a cat by the sea at night"]
    lists = processor(prompts, return_tensors=None, padding=False)
    assert len(lists["input_ids"][0]) < len(lists["input_ids"][1])
    assert processor(prompts, return_tensors="np")["input_ids"].tolist() == processor(prompts)["input_ids"].tolist()
    assert processor(prompts, padding="max_length", max_length=50)["input_ids"].shape == (2, 50)
    assert processor(prompts, pad_to_multiple_of=64)["input_ids"].shape == (2, 64)
    assert "attention_mask" not in processor(prompts, return_attention_mask=False)
    assert processor("a", add_special_tokens=False)["input_ids"][0, 0] != processor.tokenizer.bos_token_id
    apart = processor("a", pictures[0], text_kwargs={"padding_side": "right"}, images_kwargs={"do_normalize": False})
    assert apart["pixel_values"].min() >= 0


def test_truncation_keeps_the_beginning_and_cuts_no_picture(processor, pictures):
    whole = processor("a cat by the sea at night")["input_ids"][0]
    cut = processor("a cat by the sea at night", truncation=True, max_length=5)["input_ids"][0]
    assert cut.tolist() == whole[:5].tolist()
    processor.tokenizer.truncation_side = "left"
    try:
        cut = processor("a cat by the sea at night", truncation=True, max_length=5)["input_ids"][0]
        assert cut.tolist() == [whole[0], *whole[-4:]]
    finally:
        processor.tokenizer.truncation_side = "right"
    with pytest.raises(ValueError, match="would cut through a picture"):
        processor("a <ImageHere>", pictures[0], truncation=True, max_length=12)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"padding": "sometimes"}, ValueError, "padding must be one of"),
        ({"truncation": 3}, TypeError, "truncation must be one of"),
        ({"max_length": 0}, ValueError, "max_length must be at least 1"),
        ({"max_length": 5.0}, TypeError, "max_length must be a whole number"),
        ({"padding_side": "top"}, ValueError, "padding_side must be one of left, right"),
        ({"return_tensors": "tf"}, ValueError, "return_tensors must be one of pt, np"),
        ({"add_special_tokens": None}, TypeError, "add_special_tokens must be True or False"),
        ({"padding": False}, ValueError, "differ in length"),
        ({"colour": 1}, TypeError, "'colour' is no argument of the processor"),
        ({"text_kwargs": {"size": 3}}, TypeError, "'size' is no argument"),
        ({"padding": True, "text_kwargs": {"padding": True}}, ValueError, "padding is given twice"),
        ({"resample": 99}, ValueError, "image processor does not take these"),
        ({"size": "large"}, TypeError, "size must be a whole number, got str"),
        ({"size": 100_000}, ValueError, "size must be at most 4096, got 100000"),
        ({"size": {"height": 10**9, "width": 1}}, ValueError, r"size\['height'\] must be at most 4096"),
        ({"images_kwargs": {"crop_size": [8, -1]}}, ValueError, "crop_size must be at least 1, got -1"),
        ({"rescale_factor": float("nan")}, ValueError, "pixels that are not finite"),
        ({"text": None}, ValueError, "text is None"),
    ],
)
def test_options_are_checked(processor, pictures, options, error, says):
    with pytest.raises(error, match=says):
        processor(**({"text": ["a", "a long <ImageHere>"], "images": [None, pictures[0]]} | options))


def test_apply_chat_template(processor, pictures):
    chat = [user(text("What is this?"), image(pictures[0])), assistant(text("A <ImageHere>."))]
    written = processor.apply_chat_template([chat[0]], add_generation_prompt=True)
    assert written == "###Human: What is this? <Img><ImageHere></Img> ###Assistant:"
    ids = processor([chat[0]])["input_ids"].tolist()
    assert processor(written, pictures[0])["input_ids"].tolist() == ids
    assert processor.apply_chat_template([chat[0]], add_generation_prompt=True, tokenize=True).tolist() == ids
    assert processor.apply_chat_template([chat[:1], chat]) == [
        written.removesuffix("###Assistant:"),
        processor.apply_chat_template(chat),
    ]
    batch = processor.apply_chat_template(
        [chat[:1], chat],
        tokenize=True,
        return_dict=True,
        padding_side="right",
        processor_kwargs={"return_tensors": "np"},
    )
    assert batch["pixel_values"].shape == (2, 3, 64, 64) and not batch["attention_mask"].all()
    open_end = processor.apply_chat_template(chat, continue_final_message=True)
    assert open_end.endswith("###Assistant: A <ImageHere>.")


def test_apply_chat_template_takes_another_template_and_opens_pictures(processor, pictures, tmp_path):
    pictures[0].save(tmp_path / "fox.png")
    chat = [user(text("a"), {"type": "image", "path": str(tmp_path / "fox.png")})]
    assert processor.apply_chat_template(chat, "{{ messages[0].content[0].text }}!") == "a!"
    batch = processor.apply_chat_template(chat, tokenize=True, return_dict=True)
    assert torch.equal(batch["pixel_values"], processor("a", pictures[0])["pixel_values"])
    for wrong in (None, [], "a", [[]], [user(text("a")), 3]):
        with pytest.raises((TypeError, ValueError)):
            processor.apply_chat_template(wrong)


def test_the_template_is_saved_and_folders_without_one_have_minigpt4s(processor, tmp_path):
    template = "{% for m in messages %}<{{ m.role }}> {{ m.content[0].text }}{% endfor %}"
    own = MiniGPT5Processor(processor.image_processor, processor.tokenizer, chat_template=template)
    own.save_pretrained(tmp_path)
    again = MiniGPT5Processor.from_pretrained(tmp_path)
    assert again.apply_chat_template([user(text("a"))]) == "<user> a"
    assert again([user(text("a"))])["input_ids"].tolist() == own("<user> a")["input_ids"].tolist()
    (tmp_path / "chat_template.jinja").unlink()
    assert MiniGPT5Processor.from_pretrained(tmp_path).chat_template == processor.chat_template


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'"a"'])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "processor_config.json"])
def test_broken_files_of_a_processor_are_one_error(processor, tmp_path, name, content):
    processor.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"cannot be loaded as a MiniGPT5Processor: \S") as caught:
        MiniGPT5Processor.from_pretrained(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_tokenizer_without_begin_or_padding_is_one_all_the_same(processor):
    tokenizer = copy.deepcopy(processor.tokenizer)
    tokenizer.bos_token = tokenizer.pad_token = None
    own = MiniGPT5Processor(processor.image_processor, tokenizer)
    batch = own(["a", "a longer one"])
    assert batch["input_ids"][0, 0] == tokenizer.eos_token_id == tokenizer.pad_token_id
    assert batch["input_ids"][1].tolist() == processor("a longer one")["input_ids"][0, 1:].tolist()
    tokenizer.eos_token = tokenizer.pad_token = None
    with pytest.raises(ValueError, match="no token to pad with"):
        MiniGPT5Processor(processor.image_processor, tokenizer)


def test_a_processor_that_is_not_there_is_an_error_of_files(tmp_path):
    for gone in (tmp_path, tmp_path / "gone"):
        with pytest.raises(OSError, match="cannot be loaded as a MiniGPT5Processor"):
            MiniGPT5Processor.from_pretrained(gone)
