"""Voken rows, adapters and prefixes beside a frozen base."""

import copy
import json

import pytest
import torch
from diffusers.hooks import apply_group_offloading
from safetensors.torch import load_file

from minigpt5 import MiniGPT4ForConditionalGeneration, MiniGPT5Pipeline
from minigpt5.readers.generic import next_token_logits
from minigpt5.readers.minigpt4 import embed_prompt, last_hidden_states
from minigpt5.readers.vokens import replace_vokens
from minigpt5.training.cost import cost_table, training_cost
from minigpt5.vokens.adapter_folder import save_adapter
from minigpt5.vokens.adapters import LoraSettings, VokenHead, fuse_adapter, is_adapted, train_adapter

ASK = "What happens next?"
KINDS = {
    "rows": {},
    "lora": {"lora": LoraSettings(rank=4, alpha=8, dropout=0.0)},
    "prefix": {"prefix_length": 3},
}


@pytest.fixture
def pipe(tiny_folder):
    """A pipeline whose weights may be changed."""
    return MiniGPT5Pipeline.from_pretrained(tiny_folder)


@pytest.fixture(params=KINDS)
def trained(request, pipe):
    """A pipeline with an adapter of each kind, its weights moved."""
    train_adapter(pipe, **KINDS[request.param])
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in [*pipe.comprehension.parameters(), *pipe.mapper.parameters()]:
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn_like(parameter)
    return request.param, pipe


def states(pipe, texts=(ASK, "Draw this: a red fox.")):
    """Logits of prompts that end in a block of vokens."""
    ids = pipe.processor(list(texts), padding_side="right")
    vokens = torch.tensor([pipe.processor.voken_ids] * len(texts))
    input_ids = torch.cat([vokens, ids["input_ids"]], dim=1)
    mask = torch.cat([torch.ones_like(vokens), ids["attention_mask"]], dim=1)
    model = pipe.comprehension
    with torch.no_grad():
        hidden = last_hidden_states(model, embed_prompt(model, input_ids), mask)
    return next_token_logits(model, hidden)[mask.bool()]


def test_what_is_attached_is_all_that_trains(pipe):
    train_adapter(pipe, LoraSettings(rank=2))
    names = {name for name, parameter in pipe.comprehension.named_parameters() if parameter.requires_grad}
    assert sum(name.endswith(".rows") for name in names) == 2
    assert all(name.endswith(".rows") or ".lora_" in name for name in names)
    width, rows = pipe.comprehension.config.text_config.hidden_size, pipe.processor.n_vokens
    (part,) = training_cost(torch.nn.ModuleDict({"comprehension": pipe.comprehension}))
    lora = sum(p.numel() for name, p in pipe.comprehension.named_parameters() if ".lora_" in name)
    assert part.trainable == 2 * rows * width + lora
    assert part.gradients == 4 * part.trainable and part.optimizer == 8 * part.trainable
    assert f"{12 * part.trainable / 1e9:.3f} GB" in cost_table([part]).splitlines()[-1]


def test_attaching_changes_nothing_yet(pipe):
    before = states(pipe)
    train_adapter(pipe, LoraSettings())
    torch.testing.assert_close(states(pipe), before)


def test_no_gradient_of_the_size_of_the_table_is_made(pipe):
    train_adapter(pipe)
    ids = torch.tensor([[5, *pipe.processor.voken_ids]])
    model = pipe.comprehension
    hidden = last_hidden_states(model, embed_prompt(model, ids), torch.ones_like(ids))
    next_token_logits(model, hidden).square().sum().backward()
    assert model.get_input_embeddings().weight.grad is None and model.get_output_embeddings().weight.grad is None
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        assert layer.rows.grad.abs().sum() > 0


def test_an_adapter_comes_back_on_its_base(trained, tiny_folder, tmp_path):
    kind, pipe = trained
    save_adapter(pipe, tmp_path / "adapter", str(tiny_folder))
    again = MiniGPT5Pipeline.from_pretrained(tiny_folder)
    plain = states(again)
    again.load_adapter(tmp_path / "adapter")
    torch.testing.assert_close(states(again), states(pipe))
    assert not torch.allclose(states(again), plain, atol=1e-3)
    assert not any(p.requires_grad for p in again.comprehension.parameters())
    for name, parameter in pipe.mapper.named_parameters():
        assert torch.equal(again.mapper.get_parameter(name), parameter)
    told = json.loads((tmp_path / "adapter/adapter.json").read_text())
    assert told["lora"] == (kind == "lora") and told["prefix_length"] == (3 if kind == "prefix" else 0)
    assert (tmp_path / "adapter/README.md").exists()


def test_decoding_with_an_adapter_sees_what_training_sees(trained):
    _, pipe = trained
    options = {"image_mode": "always", "max_new_tokens": 4, "output_type": "latent"}
    noise = lambda: [torch.Generator().manual_seed(i) for i in range(2)]  # noqa: E731
    pipe.set_progress_bar_config(disable=True)
    both = pipe([ASK, "Draw this: a red fox on the beach."], generator=noise(), **options)
    alone = pipe(ASK, generator=noise()[:1], **options)
    assert both.text[0] == alone.text[0]
    torch.testing.assert_close(both.images[0][0], alone.images[0][0], atol=1e-4, rtol=1e-4)


def test_folding_in_changes_no_output(trained):
    kind, pipe = trained
    before = states(pipe)
    if kind == "prefix":
        with pytest.raises(ValueError, match="a prefix cannot be folded"):
            pipe.fuse_adapter()
        return
    pipe.fuse_adapter()
    assert not is_adapted(pipe.comprehension)
    assert not any("lora" in name or "frozen" in name for name in pipe.comprehension.state_dict())
    torch.testing.assert_close(states(pipe), before, atol=1e-5, rtol=1e-4)


def test_a_folded_pipeline_is_an_ordinary_one(pipe, tmp_path):
    train_adapter(pipe, LoraSettings())
    with pytest.raises(ValueError, match="fuse_adapter"):
        pipe.save_pretrained(tmp_path / "model")
    pipe.fuse_adapter()
    pipe.save_pretrained(tmp_path / "model")
    torch.testing.assert_close(states(MiniGPT5Pipeline.from_pretrained(tmp_path / "model")), states(pipe))


def test_an_adapter_fits_its_base_in_another_precision(trained, tiny_folder, tmp_path):
    _, pipe = trained
    save_adapter(pipe, tmp_path / "adapter", "base")
    for dtype in (torch.float16, torch.bfloat16):
        MiniGPT5Pipeline.from_pretrained(tiny_folder, dtype=dtype).load_adapter(tmp_path / "adapter")


def test_another_base_is_refused_and_left_as_it_was(trained, tiny_folder, tmp_path):
    _, pipe = trained
    save_adapter(pipe, tmp_path / "adapter", "that-base")
    other = MiniGPT5Pipeline.from_pretrained(tiny_folder)
    with torch.no_grad():
        other.unet.conv_in.weight.add_(0.1)
    with pytest.raises(ValueError, match="another base, that-base: the weights differ"):
        other.load_adapter(tmp_path / "adapter")
    assert not is_adapted(other.comprehension)


def test_broken_or_missing_folders_are_named(trained, tiny_folder, tmp_path):
    _, pipe = trained
    fresh = MiniGPT5Pipeline.from_pretrained(tiny_folder)
    with pytest.raises(FileNotFoundError, match="no adapter folder"):
        fresh.load_adapter(tmp_path)
    save_adapter(pipe, tmp_path / "adapter", "base")
    with pytest.raises(ValueError, match="adapter already"):
        pipe.load_adapter(tmp_path / "adapter")
    (tmp_path / "adapter/vokens.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="no safetensors file, or a broken one"):
        fresh.load_adapter(tmp_path / "adapter")
    assert not is_adapted(fresh.comprehension)


def test_nothing_attached_is_nothing_to_save(pipe, tmp_path):
    with pytest.raises(ValueError, match="no adapter to save"):
        save_adapter(pipe, tmp_path / "adapter", "base")


def test_training_goes_on_from_an_adapter(trained, tiny_folder, tmp_path):
    kind, pipe = trained
    save_adapter(pipe, tmp_path / "adapter", "base")
    again = MiniGPT5Pipeline.from_pretrained(tiny_folder)
    again.load_adapter(tmp_path / "adapter")
    train_adapter(again, LoraSettings(rank=4, alpha=8, dropout=0.0) if kind != "prefix" else None)
    rows = again.comprehension.get_input_embeddings().rows
    assert rows.requires_grad and torch.equal(rows, pipe.comprehension.get_input_embeddings().rows)
    if kind != "prefix":
        fuse_adapter(again.comprehension)
        torch.testing.assert_close(states(again), states(pipe), atol=1e-5, rtol=1e-4)


# Tied embeddings


@pytest.fixture
def tied(tiny_pipe):
    """A pipeline whose embedding table and head are one matrix."""
    config = copy.deepcopy(tiny_pipe.comprehension.config)
    config.text_config.tie_word_embeddings = True
    torch.manual_seed(0)
    comprehension = MiniGPT4ForConditionalGeneration(config).eval()
    assert comprehension.get_output_embeddings().weight is comprehension.get_input_embeddings().weight
    own = MiniGPT5Pipeline(**tiny_pipe.components | {"comprehension": comprehension})
    own.set_progress_bar_config(disable=True)
    return own


def move(pipe):
    """Train, as it were."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in (p for p in pipe.comprehension.parameters() if p.requires_grad):
            parameter += 0.1 * torch.randn_like(parameter)


def tables(model):
    return model.get_input_embeddings().weight, model.get_output_embeddings().weight


@pytest.mark.parametrize("kind", ["rows", "lora"])
def test_folding_into_tied_embeddings_unties_them(tied, tmp_path, kind):
    train_adapter(tied, **KINDS[kind])
    move(tied)
    before = states(tied)
    tied.fuse_adapter()
    rounding = {"rows": 1e-6, "lora": 1e-5}[kind]
    torch.testing.assert_close(states(tied), before, atol=rounding, rtol=rounding)
    model = tied.comprehension
    assert not model.config.tie_word_embeddings and not model.config.text_config.tie_word_embeddings

    # Saved and opened, tied anew by the library, or with more tokens, they stay two.
    tied.save_pretrained(tmp_path / "model")
    again = MiniGPT5Pipeline.from_pretrained(tmp_path / "model")
    assert torch.equal(states(again), states(tied))
    for one in (model, again.comprehension):
        one.tie_weights()
        one.language_model.resize_token_embeddings(len(tied.processor.tokenizer) + 3, mean_resizing=False)
        table, head = tables(one)
        vokens = tied.processor.voken_ids
        assert table is not head and not torch.allclose(table[vokens], head[vokens], atol=1e-3)
        assert torch.equal(table[: vokens[0]], head[: vokens[0]])


def test_tied_embeddings_are_saved_once_and_opened_tied(tied, tmp_path):
    tied.save_pretrained(tmp_path / "model")
    names = load_file(tmp_path / "model/comprehension/model.safetensors").keys()
    assert ("language_model.lm_head.weight" in names) + ("language_model.model.embed_tokens.weight" in names) == 1
    again = MiniGPT5Pipeline.from_pretrained(tmp_path / "model")
    table, head = tables(again.comprehension)
    assert table is head and torch.equal(states(again), states(tied))


def test_an_adapter_of_a_tied_base_keeps_both_its_tables(tied, tmp_path):
    tied.save_pretrained(tmp_path / "model")
    train_adapter(tied)
    move(tied)
    save_adapter(tied, tmp_path / "adapter", "base")
    again = MiniGPT5Pipeline.from_pretrained(tmp_path / "model")
    again.load_adapter(tmp_path / "adapter")
    assert torch.equal(states(again), states(tied))
    again.fuse_adapter()
    torch.testing.assert_close(states(again), states(tied), atol=1e-6, rtol=1e-6)


def test_new_vokens_of_a_tied_model_stay_tied(tied):
    processor = replace_vokens(tied.comprehension, tied.processor, 4)
    table, head = tables(tied.comprehension)
    assert table is head and len(table) == len(processor.tokenizer)


@pytest.mark.parametrize("bias", [True, False])
def test_a_head_reads_no_weights_past_its_parts_hooks(weights_leave, bias):
    head = VokenHead(torch.nn.Linear(6, 10, bias=bias), [7, 8, 9])
    hidden = torch.randn(2, 6)
    whole = head(hidden)
    assert torch.allclose(whole, head.frozen(hidden), atol=1e-6)
    apply_group_offloading(head, torch.device("cpu"), offload_type="leaf_level")
    assert torch.equal(head(hidden), whole) and weights_leave
