"""The miniature's reader learns what StoryWorld asks beside captions, and its tokenizer knows the words."""

import pytest
from transformers import Blip2ForConditionalGeneration

from minigpt5 import MiniGPT5Processor
from minigpt5.data.layouts import chat_rows
from minigpt5.storyworld.export import EXPORTS

CONFIG = "configs/storyworld-mini/comprehension.yaml"


@pytest.mark.parametrize("task", ["question", "change"])
def test_a_few_steps_with_questions_make_a_reader(run_program, tmp_path, task):
    data, out = tmp_path / "data", tmp_path / "out"
    for name in ("cc3m", "vist", "mmdialog", task):
        EXPORTS[name](data / name, "train", 8)
    EXPORTS["cc3m"](data / "cc3m", "validation", 8)
    few = ("--steps", 2, "--captions_only_steps", 1, "--captions_only_batch_size", 2, "--batch_size", 3)
    run_program(
        *("training/miniature/pretrain_comprehension", "--config", CONFIG, "--data", data, "--out", out),
        *(*few, "--mix", f"{{caption: 1, {task}: 2}}", "--mixed_precision", "no"),
    )
    processor = MiniGPT5Processor.from_pretrained(out / "processor")
    model = Blip2ForConditionalGeneration.from_pretrained(out / "model")
    assert model.get_input_embeddings().num_embeddings == len(processor.tokenizer)
    # All eight rows went into the tokenizer, wherever their words come from.
    asked = [part["text"] for (row, *_) in chat_rows(data / task, "train") for part in row["content"] if part["text"]]
    assert len(asked) == 8
    tokens = {token for text in asked for token in processor.tokenizer.tokenize(text)}
    assert not {token for token in tokens if token.startswith("<0x")}
