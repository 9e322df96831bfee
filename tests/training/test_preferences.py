"""Preferences are learnt by DPO, with the same model without its adapter as the reference."""

import json
from math import exp, log

import pytest
import torch

from minigpt5 import MiniGPT5Pipeline
from minigpt5.data.tolerant import TooManyBadRows
from minigpt5.readers.lora import without_lora
from minigpt5.training.preferences import (
    Pairs,
    PreferenceConfig,
    PreferenceModel,
    dpo_margin,
    sequence_log_probs,
    train_preferences,
)
from minigpt5.vokens.adapters import LoraSettings

LORA = LoraSettings(rank=2, alpha=4, dropout=0.0)


@pytest.fixture
def pairs(tmp_path, pictures):
    folder = tmp_path / "preferences"
    folder.mkdir()
    pictures[0].save(tmp_path / "one.png")
    seen = [{"type": "image", "image": "../one.png"}, {"type": "text", "text": "What do you see?"}]
    said = [[{"role": "assistant", "content": text}] for text in ("A fox.", "A cat in the snow.")]
    rows = [
        {"prompt": [{"role": "user", "content": content}], "chosen": said[0], "rejected": said[1]}
        for content in ("Who is it?", seen)
    ]
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_log_probabilities_and_the_loss_are_those_made_by_hand():
    # Two tokens a row, of a vocabulary of two; the last place of the second row is not scored.
    logits = torch.tensor([[[0.0, log(3)], [0.0, 0.0]], [[log(4), 0.0], [5.0, 1.0]]])
    labels = torch.tensor([[1, 0], [0, -100]])
    told = sequence_log_probs(logits, labels)
    torch.testing.assert_close(told, torch.tensor([log(3 / 4) + log(1 / 2), log(4 / 5)]))
    # Equation 7 with beta 0.5: 0.5 ((-1 + 2) - (-4 + 3)) = 1, and 0.5 ((-3 + 3) - (-1 + 2)) = -0.5.
    policy, reference = torch.tensor([[-1.0, -3.0], [-4.0, -1.0]]), torch.tensor([[-2.0, -3.0], [-3.0, -2.0]])
    margin = dpo_margin(policy, reference, beta=0.5)
    assert margin.tolist() == [1.0, -0.5]
    loss = -torch.nn.functional.logsigmoid(margin).mean().item()
    assert loss == pytest.approx((log(1 + exp(-1)) + log(1 + exp(0.5))) / 2)


def test_a_model_begins_as_its_own_reference(tiny_folder, pairs):
    reader = MiniGPT5Pipeline.from_pretrained(tiny_folder).reader
    drawn = Pairs(pairs, "train", reader, batch_size=2, seed=0, max_bad_share=0.0)
    batch = drawn.batch(0)
    assert len(batch["input_ids"]) == 4
    before = reader.logits(reader.prefill({n: v for n, v in batch.items() if n not in ("labels", "targets")}).last)
    model = PreferenceModel(reader, LORA, beta=0.1).train()
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable and all("lora_" in name for name in trainable)
    losses = model(batch)
    assert losses["loss"].item() == pytest.approx(log(2)) and losses["accuracy"] == 0
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(10):
        optimizer.zero_grad()
        model(batch)["loss"].backward()
        optimizer.step()
    losses = model(batch)
    assert losses["loss"] < 0.6 and losses["accuracy"] == 1
    # The reference has not moved, and what trains still does.
    with torch.no_grad(), without_lora(model.comprehension):
        torch.testing.assert_close(model.logits(batch), before[:, :-1])
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == trainable


def test_a_run_goes_on_and_leaves_a_pipeline(tiny_folder, pairs, tmp_path):
    settings = {"batch_size": 2, "learning_rate": 1e-2, "warmup_steps": 0, "lr_scheduler": "constant"}
    settings |= {"report_to": None, "judged": 1, "lora": LORA, "data": pairs, "model": tiny_folder}
    for name, steps in (("halves", 1), ("halves", 2), ("whole", 2)):
        train_preferences(PreferenceConfig(steps=steps, out=tmp_path / name, **settings))
    old, halves, whole = (
        MiniGPT5Pipeline.from_pretrained(folder).comprehension.state_dict()
        for folder in (tiny_folder, tmp_path / "halves/model", tmp_path / "whole/model")
    )
    changed = {name for name in old if not torch.equal(whole[name], old[name].half().float())}
    assert {name.split(".")[-2] for name in changed} == {"q_proj", "v_proj"}
    for name in old:
        torch.testing.assert_close(halves[name], whole[name])


def test_a_pair_longer_than_the_context_is_passed_over_and_counted(tiny_pipe, pairs, pictures, caplog):
    file = pairs / "train.jsonl"
    short, seen = (json.loads(line) for line in file.read_text().splitlines())
    long = {"prompt": short["prompt"], "chosen": short["chosen"], "rejected": short["rejected"]}
    long["rejected"] = [{"role": "assistant", "content": "It sleeps in the forest. " * 200}]
    file.write_text("".join(json.dumps(row) + "\n" for row in (short, long, seen)))
    drawn = Pairs(pairs, "train", tiny_pipe.reader, batch_size=3, seed=1, max_bad_share=0.05)
    usual = Pairs(pairs, "validation", tiny_pipe.reader, batch_size=2, seed=0, max_bad_share=0.0).batch(0)
    batch = drawn.batch(0)
    # Three better replies, then three worse ones, of pairs that fit; one of the two comes twice.
    assert batch["input_ids"].shape[0] == 6 and batch["input_ids"].shape[1] == usual["input_ids"].shape[1]
    assert (drawn.rows.count.read, drawn.rows.count.bad) == (4, 1)
    assert "1 of the 3 rows read so far cannot be used: the pair whose prompt begins 'Who is it?': " in caplog.text
    assert "tokens long, and the model's context holds 512" in caplog.text
    with pytest.raises(TooManyBadRows, match=r"(?s)1 of the \d rows read so far cannot be used.*'Who is it\?'"):
        Pairs(pairs, "train", tiny_pipe.reader, batch_size=3, seed=0, max_bad_share=0.0).batch(0)
    file.write_text(json.dumps(long))
    with pytest.raises(ValueError, match="none of the pairs"):
        Pairs(pairs, "train", tiny_pipe.reader, batch_size=1, seed=0, max_bad_share=0.5).batch(0)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("", "has no pairs"),
        ('{"prompt": [], "chosen": [], "rejected": []}', "line 1: expected a prompt that ends with the user's"),
        ('{"prompt": []}', "line 1: no chosen"),
    ],
)
def test_what_is_no_preference_is_refused(tiny_pipe, pairs, line, told):
    (pairs / "train.jsonl").write_text(line)
    with pytest.raises(ValueError, match=told):
        Pairs(pairs, "train", tiny_pipe.reader, 1, 0, 0.0)
