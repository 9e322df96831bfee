"""What was chosen is told with the model's own probabilities."""

import pytest
import torch

from minigpt5.vokens.inspection import inspect_reply


def inspected(pipe, prompt, **decoding):
    with torch.no_grad():
        return inspect_reply(pipe.reader, pipe.encode_prompt([prompt]), pipe.decoding_config(**decoding))


def test_choices_are_those_of_the_reply_with_probabilities_of_a_plain_forward(pipe):
    prompt, reader = "the red fox sees", pipe.reader
    inspection = inspected(pipe, prompt, image_mode="never", max_new_tokens=4)
    reply = pipe(prompt, image_mode="never", max_new_tokens=4, do_sample=False).text[0]
    said = "".join(choice.token for choice in inspection.choices)
    assert reply.replace(" ", "") in said.replace(" ", "") and not any(choice.paints for choice in inspection.choices)
    # By hand: the first token's distribution, without what is never said.
    with torch.no_grad():
        cache = reader.new_cache()
        logits = reader.logits(reader.prefill(pipe.encode_prompt([prompt]), cache).last[:, -1])
    logits[:, [*reader.never_said, *reader.voken_ids]] = -torch.inf
    shares, tokens = logits[0].softmax(-1).topk(4)
    first = inspection.choices[0]
    assert first.token == reader.tokenizer.decode([tokens[0]])
    assert [first.probability, *(share for _, share in first.others)] == pytest.approx(shares.tolist(), rel=1e-4)
    assert [token for token, _ in first.others] == [reader.tokenizer.decode([token]) for token in tokens[1:]]


def test_a_picture_is_told_by_its_vokens_with_probabilities_of_a_plain_forward(pipe):
    reader = pipe.reader
    # The only choice gives way to the picture that is owed.
    inspection = inspected(pipe, "go on", image_mode="always", max_new_tokens=1)
    (block,) = inspection.vokens
    assert [name for name, _ in block] == [f"[IMG{number}]" for number in range(8)] and len(inspection.choices) == 1
    inputs = pipe.encode_prompt(["go on"])
    vokens = torch.tensor([reader.voken_ids])
    inputs["input_ids"] = torch.cat([inputs["input_ids"], vokens], 1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    with torch.no_grad():
        shares = reader.logits(reader.prefill(inputs, reader.new_cache()).last[0, -9:-1]).softmax(-1)
    by_hand = shares[range(8), reader.voken_ids].tolist()
    assert [share for _, share in block] == pytest.approx(by_hand, rel=1e-3)
