import json
import math
import random

import pytest
import torch
from forking import run_forked
from torch import nn
from transformers import BertConfig, BertForMaskedLM

from minigpt5.readers.qformer import (
    QFormerPretraining,
    add_decode_token,
    build_retrieval_model,
    contrastive_loss,
    encode_texts,
    highest_similarity,
    sample_negatives,
    self_attention_mask,
)
from minigpt5.storyworld import miniature
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.language import caption
from minigpt5.storyworld.scene import sample_scene

LENGTH = 32


@pytest.fixture(scope="module")
def tokenizer(texts):
    return miniature.build_tokenizer(texts, lowercase=True, max_length=LENGTH)


@pytest.fixture(scope="module")
def stack(tiny_processor):
    torch.manual_seed(0)
    size, mark = len(tiny_processor.tokenizer), tiny_processor.image_token_id
    return miniature.build_comprehension(size, mark, tiny_processor.tokenizer)


@pytest.fixture(scope="module")
def pairs(tiny_processor, tokenizer):
    """Eight pictures of different scenes, and their captions with their padding."""
    rngs = [random.Random(seed) for seed in range(8)]
    scenes = [sample_scene(rng) for rng in rngs]
    pixels = tiny_processor.image_processor([draw(scene) for scene in scenes], return_tensors="pt")["pixel_values"]
    captions = [caption(scene, rng) for scene, rng in zip(scenes, rngs, strict=True)]
    return pixels, *encode_texts(tokenizer, captions, LENGTH)


@pytest.fixture
def model(stack, tokenizer) -> QFormerPretraining:
    torch.manual_seed(1)
    decode = add_decode_token(tokenizer)
    retrieval = build_retrieval_model(
        stack.vision_model, stack.config, len(tokenizer), tokenizer.pad_token_id, dropout=0.0
    )
    return QFormerPretraining(retrieval, decode).eval()


def test_mask_of_generation_by_hand():
    mask = self_attention_mask(torch.tensor([[1, 1, 0]]), num_queries=2, causal=True)
    assert (mask[0, 0] == 0).int().tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 1, 1, 0],
    ]


def test_mask_of_matching_by_hand():
    mask = self_attention_mask(torch.tensor([[1, 1, 0]]), num_queries=2, causal=False)
    assert (mask[0, 0] == 0).int().tolist() == [[1, 1, 1, 1, 0]] * 5


def changed(ids, position):
    """The same ids with another word at one position."""
    ids = ids.clone()
    ids[:, position] = (ids[:, position] + 1) % 500
    return ids


def test_in_generation_text_sees_queries_and_earlier_text_and_queries_see_no_text(model, pairs):
    pixels, ids, mask = pairs
    patches = model.see(pixels)
    queries, words = model.read(patches, ids, mask, causal=True)
    other_queries, other_words = model.read(patches, changed(ids, 3), mask, causal=True)
    assert torch.equal(other_queries, queries)
    assert torch.equal(other_words[:, :3], words[:, :3])
    assert (other_words[:, 3:6] != words[:, 3:6]).any(dim=-1).all()
    _, unseeing = model.read(torch.zeros_like(patches), ids, mask, causal=True)
    assert (unseeing != words).any(dim=-1).all()


def test_in_matching_all_see_all(model, pairs):
    pixels, ids, mask = pairs
    patches = model.see(pixels)
    queries, words = model.read(patches, ids, mask, causal=False)
    other_queries, other_words = model.read(patches, changed(ids, 3), mask, causal=False)
    assert (other_queries != queries).any(dim=-1).all()
    assert (other_words != words).any(dim=-1).all()


def test_in_contrast_queries_and_text_do_not_see_each_other(model, pairs):
    pixels, ids, mask = pairs
    scores = model.similarity(pixels, ids, mask)
    one = model.similarity(pixels[2:3], ids[5:6], mask[5:6])
    torch.testing.assert_close(scores[2, 5], one[0, 0])
    # What the causal pass says of the queries is what they say on their own.
    queries, _ = model.read(model.see(pixels), ids, mask, causal=True)
    together = highest_similarity(model.image_features(queries), model.text_features(ids, mask))
    torch.testing.assert_close(together, scores)


def test_no_gradient_from_contrast_to_text_through_queries(model, pairs):
    pixels, ids, mask = pairs
    queries, _ = model.read(model.see(pixels), ids, mask, causal=True)
    model.image_features(queries).sum().backward()
    assert model.model.embeddings.word_embeddings.weight.grad.abs().max() == 0
    assert model.model.query_tokens.grad.abs().max() > 0


@pytest.mark.parametrize("causal", [True, False])
def test_padding_is_not_seen(model, pairs, causal):
    pixels, ids, mask = pairs
    patches = model.see(pixels)
    filled = torch.where(mask.bool(), ids, 300)
    queries, words = model.read(patches, ids, mask, causal)
    other_queries, other_words = model.read(patches, filled, mask, causal)
    there = mask.bool()
    assert torch.equal(other_queries, queries) and torch.equal(other_words[there], words[there])


def test_contrast_takes_the_query_that_is_closest():
    images = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.6, 0.8], [-1.0, 0.0]]])
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert highest_similarity(images, texts).tolist() == [[1, 1, 0], pytest.approx([0.6, 0.8, 1.0])]


def test_contrastive_loss_by_hand():
    # Odds of 3 to 1 for the partner one way, even odds the other.
    image_to_text = torch.tensor([[math.log(3), 0.0], [0.0, math.log(3)]])
    text_to_image = torch.zeros(2, 2)
    loss = contrastive_loss(image_to_text, text_to_image, torch.arange(2))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    smooth = contrastive_loss(image_to_text, text_to_image, torch.arange(2), label_smoothing=0.1)
    assert smooth.item() == pytest.approx((0.95 * math.log(4 / 3) + 0.05 * math.log(4) + math.log(2)) / 2)


def test_matching_loss_averages_logits_over_queries(model, monkeypatch):
    answers = torch.tensor([[[0.0, 0.0], [0.0, 2 * math.log(3)]], [[math.log(3), 0.0], [math.log(3), 0.0]]])
    monkeypatch.setattr(model, "read", lambda *args, **kwargs: (answers, None))
    model.model.itm_head = nn.Identity()
    loss = model.matching_loss(None, None, None, torch.tensor([True, True]))
    # The queries' mean says 3 to 1 for the first pair and against the second.
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


def test_generation_loss_is_that_of_the_words_after_the_decode_token(model, pairs):
    pixels, ids, mask = pairs
    told = ids.clone()
    told[:, 0] = model.decode_token_id
    _, words = model.read(model.see(pixels), told, mask, causal=True)
    logs = model.next_word_logits(words).log_softmax(dim=-1)
    smooth, terms = 0.1, []
    for row in range(len(ids)):
        for place in range(1, int(mask[row].sum())):
            scores = logs[row, place - 1]
            terms.append(-(1 - smooth) * scores[ids[row, place]] - smooth * scores.mean())
    expected = torch.stack(terms).mean()
    torch.testing.assert_close(model(pixels, ids, mask)["generation"], expected)


def test_negatives_are_never_the_own_partner_and_follow_the_scores():
    torch.manual_seed(0)
    scores = torch.tensor([[50.0, 0.0, math.log(3)]]).expand(4000, -1)
    drawn = sample_negatives(scores, torch.zeros(4000, dtype=torch.long))
    counts = drawn.bincount(minlength=3)
    assert counts[0] == 0
    assert counts[2].item() == pytest.approx(3000, abs=150)


def test_a_lone_pair_has_no_negatives(model, pairs):
    with pytest.raises(ValueError, match="batch of two or more"):
        model(*(part[:1] for part in pairs))


def test_the_vit_runs_once_a_step_and_is_frozen_but_for_its_norm(model, pairs, count_calls):
    calls = count_calls(model.model.vision_model)
    model.train()(*pairs)["loss"].backward()
    assert len(calls) == 1
    trained = {name for name, parameter in model.model.vision_model.named_parameters() if parameter.grad is not None}
    assert trained == {"post_layernorm.weight", "post_layernorm.bias"}
    others = [p for name, p in model.named_parameters() if "vision_model" not in name]
    assert all(parameter.grad is not None for parameter in others)


def test_losses_come_down_and_partners_find_each_other(model, pairs):
    few = [part[:4, :12] if part.ndim == 2 else part[:4] for part in pairs]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-3)
    torch.manual_seed(0)
    for _ in range(120):
        losses = model.train()(*few)
        losses["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
    # Smoothed labels leave 0.349 of contrast, of 1.386 at chance, when partners are certain.
    assert losses["contrast"] < 0.7 and losses["matching"] < 0.3 and losses["generation"] < 1.2
    assert model.eval().similarity(*few).argmax(dim=1).tolist() == list(range(4))


def test_the_stack_takes_the_trained_parts(model, stack, pairs):
    pixels, _, _ = pairs
    before = stack.get_image_features(pixels).qformer_outputs.last_hidden_state
    model.copy_to(stack)
    after = stack.get_image_features(pixels).qformer_outputs.last_hidden_state
    alone = model.model.qformer(
        query_embeds=model.model.query_tokens.expand(len(pixels), -1, -1), encoder_hidden_states=model.see(pixels)
    ).last_hidden_state
    assert torch.equal(after, alone) and not torch.allclose(after, before)


def tiny_bert(**sizes) -> BertForMaskedLM:
    settings = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4} | sizes
    torch.manual_seed(3)
    bert = BertForMaskedLM(BertConfig(vocab_size=400, layer_norm_eps=1e-12, **settings)).eval()
    # The Q-Former has no token types.
    nn.init.zeros_(bert.bert.embeddings.token_type_embeddings.weight)
    nn.init.normal_(bert.cls.predictions.bias)
    return bert


def test_from_bert_the_text_branch_speaks_as_bert_does(model):
    bert = tiny_bert()
    model.initialise_from(bert)
    ids, mask = torch.randint(400, (2, 7)), torch.tensor([[1] * 7, [1] * 5 + [0] * 2])
    states = model.model.qformer(
        query_embeds=model.model.embeddings(input_ids=ids), query_length=0, attention_mask=mask
    ).last_hidden_state
    logits = model.next_word_logits(states)[..., :400]
    torch.testing.assert_close(logits, bert(ids, mask).logits, rtol=1e-4, atol=1e-5)
    layer = model.model.qformer.encoder.layer[1]
    for own, theirs in (("intermediate_query", "intermediate"), ("output_query", "output")):
        for name, weight in bert.bert.encoder.layer[1].get_submodule(theirs).named_parameters():
            assert torch.equal(layer.get_submodule(own).get_parameter(name), weight)


def test_a_bert_of_another_size_is_refused(model):
    with pytest.raises(ValueError, match="num_hidden_layers is 3, the Q-Former's 2"):
        model.initialise_from(tiny_bert(num_hidden_layers=3))


def test_texts_need_a_first_token(tiny_processor, tokenizer):
    ids, mask = encode_texts(tokenizer, ["a red fox", "a fox"], 12)
    assert ids.shape == mask.shape == (2, 12)
    assert ids[:, 0].tolist() == [tokenizer.bos_token_id] * 2 and mask.sum(1).tolist() == [5, 4]
    bare = miniature.build_tokenizer(["a red fox"], lowercase=True, max_length=LENGTH)
    bare.backend_tokenizer.post_processor = None
    with pytest.raises(ValueError, match="no special token in front"):
        encode_texts(bare, ["a red fox"], 12)


def test_decode_token_is_one_new_token(tokenizer):
    before = len(tokenizer)
    assert add_decode_token(tokenizer) == add_decode_token(tokenizer)
    assert len(tokenizer) <= before + 1
    assert tokenizer.bos_token == "<s>" and "[DEC]" in tokenizer.all_special_tokens


SHARED = """
import json
import torch
from torch import distributed
from minigpt5.readers.qformer import contrastive_loss, gather, highest_similarity

distributed.init_process_group("gloo")
rank, count = distributed.get_rank(), distributed.get_world_size()
torch.manual_seed(0)
features, size = (torch.randn(4, 3, 5), torch.randn(4, 5)), 4 // count
weight = torch.eye(5, requires_grad=True)
images, texts = (part[rank * size : (rank + 1) * size] @ weight for part in features)
own = rank * size + torch.arange(size)
loss = contrastive_loss(highest_similarity(images, gather(texts)), highest_similarity(gather(images), texts).T, own)
loss.backward()
distributed.all_reduce(weight.grad)
print("RESULT", json.dumps((weight.grad / count).tolist()))
"""


def test_two_processes_contrast_as_one_with_both_batches(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(SHARED)
    outputs = run_forked(program, processes=2)
    assert [output.returncode for output in outputs] == [0, 0], outputs

    torch.manual_seed(0)
    weight = torch.eye(5, requires_grad=True)
    images, texts = torch.randn(4, 3, 5) @ weight, torch.randn(4, 5) @ weight
    scores = highest_similarity(images, texts)
    contrastive_loss(scores, scores.T, torch.arange(4)).backward()
    for output in outputs:
        (line,) = [line for line in output.stdout.splitlines() if line.startswith("RESULT")]
        torch.testing.assert_close(torch.tensor(json.loads(line.removeprefix("RESULT "))), weight.grad)
