import random

from minigpt5.data.instructions import INSTRUCTIONS, instruct_task, pair_example
from minigpt5.readers.processor import MiniGPT5Processor
from minigpt5.readers.prompts import Mark


def test_a_pair_is_a_picture_alone_and_its_caption(tiny_processor, pictures):
    batch = tiny_processor.training_batch([pair_example("a red fox", pictures[0])])
    ids, labels = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
    words = tiny_processor.tokenizer.encode("a red fox ###", add_special_tokens=False)
    queries = tiny_processor.num_query_tokens
    assert ids == [tiny_processor.tokenizer.bos_token_id, *[tiny_processor.image_token_id] * queries, *words]
    assert labels == [-100] * (queries + 1) + words


def test_instructions_stand_in_the_published_template(tiny_processor, pictures):
    other = MiniGPT5Processor(
        tiny_processor.image_processor, tiny_processor.tokenizer, num_query_tokens=8, n_vokens=8, system="Be kind."
    )
    example = other.example(instruct_task("a red fox", pictures[0], random.Random(0)))
    source = "".join("<ImageHere>" if piece is Mark.IMAGE else piece for piece in example.source)
    assert source in {f"###Human: <Img><ImageHere></Img> {words} ###Assistant:" for words in INSTRUCTIONS}
    assert "".join(example.target) == "a red fox  ###" and example.images == [pictures[0]]


def test_all_instructions_are_drawn(pictures):
    rng = random.Random(0)
    drawn = {instruct_task("", pictures[0], rng)[1]["content"][1]["text"] for _ in range(100)}
    assert drawn == set(INSTRUCTIONS)
