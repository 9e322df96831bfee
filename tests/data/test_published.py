"""Prompts, token ids and labels of the three data sets, against those that the published code made of the same rows."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from minigpt5 import MiniGPT5Processor
from minigpt5.data import published
from minigpt5.data.published import cc3m_examples, clean_caption, mmdialog_examples, vist_examples
from minigpt5.data.readers import read_cc3m, read_mmdialog, read_vist
from minigpt5.published.tokenizer import load_llama_tokenizer
from minigpt5.readers.prompts import IMAGE_MARK, Mark
from minigpt5.utils.images import published_image_processor

GOLDEN = Path(__file__).parents[1] / "golden"
PICTURES = {
    "cc3m": ["000007775", "000009256"],
    "vist": ["000000005", "000000007", "000000003", "000000004", "000000000"],
    "mmdialog": ["2682085160072908899", "-5632896413199993329", "3433276376275926389", "-5763052819421198282"],
}
FOLDERS = {
    "CC3M/val": "cc3m",
    "VIST/val_images": "vist",
    "MMDialog/test": "mmdialog",
    "MMDialog_made_up/test": "mmdialog",
}
SPELT = {Mark.IMAGE: IMAGE_MARK, Mark.VOKENS: "".join(f"[IMG{i}]" for i in range(8))}


def recorded(name):
    return json.loads((GOLDEN / "datasets" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def processor():
    # One query token: the recorded ids have one for each picture.
    tokenizer = load_llama_tokenizer(GOLDEN / "A/llm")
    return MiniGPT5Processor(published_image_processor(28), tokenizer, num_query_tokens=1, n_vokens=8)


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """The published samples, each picture in a grey of its own that tells its place in the list."""
    root = tmp_path_factory.mktemp("data") / "samples"
    shutil.copytree(GOLDEN / "samples", root)
    for folder, data in FOLDERS.items():
        (root / folder).mkdir(exist_ok=True)
        for shade, name in enumerate(PICTURES[data]):
            Image.new("RGB", (6, 4), (shade,) * 3).save(root / folder / f"{name}.jpg", format="PNG")
    return root


def spell(pieces):
    return "".join(SPELT.get(piece, piece) for piece in pieces)


def build(samples, name, tokenizer):
    rng, test = random.Random(42), "test" in name
    if name.startswith("cc3m"):
        return list(cc3m_examples(read_cc3m(samples / "CC3M", "val"), rng, test))
    if name.startswith("vist"):
        return list(vist_examples(read_vist(samples / "VIST", "val"), rng, test))
    folder = "MMDialog_made_up" if "made_up" in name else "MMDialog"
    rows = read_mmdialog(samples / folder, "test", cut_at_missing=True)
    return list(mmdialog_examples(rows, None if test else tokenizer))


def check(processor, examples, name):
    items, known = recorded(name)["items"], PICTURES[name.split("_")[0]]
    assert len(examples) == len(items) == recorded(name)["total"]
    for example, item in zip(examples, items, strict=True):
        assert spell(example.source) == item["source"] and spell(example.target) == item["target"]
        assert example.caption == item["caption"]

        ids, labels = processor.training_pair(example.source, example.target)
        assert ids == [processor.tokenizer.bos_token_id, *item["input_ids"]]
        assert labels[1:] == item["labels"]

        read = [f"{known[image.convert('RGB').getpixel((0, 0))[0]]}.jpg" for image in example.images]
        assert (read or [None]) == item["input_images"]
        painted = [f"{known[image.getpixel((3, 3))[0]]}.jpg" for image in example.outputs]
        assert (painted or [None]) == [item["output_image"]]
        assert all(image.size == (6, 6) for image in example.outputs)


@pytest.mark.parametrize(
    "name",
    [
        "cc3m_train",
        "cc3m_test",
        "vist_train",
        "vist_test",
        "mmdialog_train",
        "mmdialog_test",
        "mmdialog_made_up_train",
        "mmdialog_made_up_test",
    ],
)
def test_examples_equal_the_recorded_ones(processor, samples, name):
    check(processor, build(samples, name, processor.tokenizer), name)


def test_the_stale_cache_was_the_training_list_with_captions_for_targets(processor, samples):
    stale = [
        replace(example, target=(example.caption,)) for example in build(samples, "cc3m_train", processor.tokenizer)
    ]
    check(processor, stale, "cc3m_test_with_stale_cache")


def test_captions_are_cleaned_and_every_hundredth_is_a_command():
    expected = recorded("cc3m_made_up")
    raw, blank = expected["raw_captions"], Image.new("RGB", (2, 2))
    assert [clean_caption(caption) for caption in raw] == expected["cleaned"]
    rows = [{"caption": raw[number % len(raw)], "image": blank} for number in range(201)]
    sources = [spell(example.source) for example in cc3m_examples(rows, random.Random(3))]
    assert len(sources) == expected["total"]
    assert [source for source in sources if "###" in source] == [
        item["source"] for item in expected["instruction_items"]
    ]


def test_white_space_between_words_stays_where_it_is_alone():
    assert clean_caption(" a\u00a0dog\ton  the\t\tbeach \n") == "a\u00a0dog\ton the beach"


def test_every_published_wording_is_drawn():
    """The recordings hold some of them; these are all, in the order that a seed draws from."""
    assert published.GENERATE == (
        "generate image with caption:",
        "can you give me the image with caption:",
        "help me to generate this image:",
        "generate image with according to caption:",
        "according to caption, generate image:",
        "an image with caption:",
        "can you visualize this caption:",
    )
    assert published.CONTINUE == (
        "Tell me the next scene with image.",
        "Generate the next scene with image.",
        "What should happen then?",
    )
    for name in ("vist_train", "cc3m_train"):
        wordings = (*published.GENERATE, *published.ILLUSTRATE, *published.CONTINUE, *published.DESCRIBE)
        asked = [item["source"] for item in recorded(name)["items"] if "###Assistant:" in item["source"]]
        assert asked and all(any(wording in source for wording in wordings) for source in asked)


@pytest.mark.parametrize("item", recorded("tokenization")["items"], ids=lambda item: repr(item["text"]))
def test_strings_have_the_recorded_ids(processor, item):
    assert processor.tokenizer.encode(item["text"], add_special_tokens=False) == item["ids"]


def test_a_saved_tokenizer_gives_the_recorded_ids_again(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = MiniGPT5Processor.from_pretrained(tmp_path).tokenizer
    for item in recorded("tokenization")["items"]:
        assert again.encode(item["text"], add_special_tokens=False) == item["ids"]


def test_a_batch_is_padded_as_recorded(processor):
    expected = recorded("tokenization")["batch_padding"]
    short, long = expected["input_ids"]
    batch = processor.tokenizer.pad({"input_ids": [short[:1], long]})
    assert dict(batch) == expected


def test_a_caption_that_spells_vokens_paints_nothing_of_its_own(processor):
    rows = [{"caption": "say [img0] <ImageHere> [IMG0]", "image": Image.new("RGB", (2, 2))}]
    (plain, *_) = cc3m_examples(rows, random.Random(0), test=True)
    ids, _ = processor.training_pair(plain.source, ["[IMG0] <ImageHere>"])
    assert not {*processor.voken_ids, processor.image_token_id} & set(ids)


def test_examples_make_a_training_batch(processor, samples):
    examples = build(samples, "vist_train", processor.tokenizer)
    batch = processor.training_batch(examples[2:5])
    assert batch["pixel_values"].shape == (1 + 2 + 2, 3, 28, 28)
    assert len(batch["targets"]) == 2
    pair = processor.training_pair(examples[2].source, examples[2].target)
    length = len(pair[0])
    assert (batch["input_ids"][0, :length].tolist(), batch["labels"][0, :length].tolist()) == pair


def test_pictures_open_as_examples_are_asked_for(samples):
    rows = ({"caption": "a", "image": Image.new("RGB", (2, 2)), "row": row} for row in iter(int, 1))
    assert next(cc3m_examples(rows, random.Random(0))).caption == "a"
