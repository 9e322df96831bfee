"""Adapters are checked whole before anything is attached: one that is refused leaves the pipeline bit for bit."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from minigpt5 import MiniGPT5Pipeline, QueryConnector
from minigpt5.vokens.adapter_folder import save_adapter
from minigpt5.vokens.adapters import LoraSettings, train_adapter

KINDS = {
    "rows": {},
    "lora": {"lora": LoraSettings(rank=4, alpha=8)},
    "prefix": {"prefix_length": 3},
}


@pytest.fixture(scope="module")
def pipe(small_folder):
    """A base, which every refusal must leave alone."""
    return MiniGPT5Pipeline.from_pretrained(small_folder)


@pytest.fixture(scope="module")
def adapters(small_folder, tmp_path_factory):
    """A folder of each kind."""
    root = tmp_path_factory.mktemp("adapters")
    for kind, settings in KINDS.items():
        trained = MiniGPT5Pipeline.from_pretrained(small_folder)
        train_adapter(trained, **settings)
        with torch.no_grad():
            for parameter in [*trained.comprehension.parameters(), *trained.mapper.parameters()]:
                parameter += 0.1 * parameter.requires_grad
        save_adapter(trained, root / kind, "that-base")
    return root


@pytest.fixture
def folder(adapters, tmp_path):
    """Gives a copy of an adapter, to be broken."""
    return lambda kind: shutil.copytree(adapters / kind, tmp_path / kind)


def everything(pipe):
    """All that a pipeline is made of, to the bit."""
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, nn.Module)}
    kinds = [(name, id(m), m.training) for part in modules.values() for name, m in part.named_modules()]
    grads = [(name, p.requires_grad) for part in modules.values() for name, p in part.named_parameters()]
    return kinds, grads, [value.clone() for part in modules.values() for value in part.state_dict().values()]


def same(one, two):
    return one[:2] == two[:2] and all(map(torch.equal, one[2], two[2]))


def record(folder, **values):
    file = folder / "adapter.json"
    told = json.loads(file.read_text()) | values
    file.write_text(json.dumps({name: value for name, value in told.items() if value is not ...}))


def peft(folder, **values):
    file = folder / "lora/adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def tensors(folder, name, edit):
    file = folder / name
    content = load_file(file)
    edit(content)
    save_file({name: value.contiguous() for name, value in content.items()}, file, metadata={"format": "pt"})


def nan_at_end(name):
    return lambda content: content[name].view(-1)[-1:].fill_(torch.nan)


def pop_last(content):
    del content[sorted(content)[-1]]


def halve_last(content):
    name = sorted(content)[-1]
    content[name] = content[name][: len(content[name]) // 2]


LORA, MAPPER = "lora/adapter_model.safetensors", "mapper/diffusion_pytorch_model.safetensors"
BROKEN = {
    "no JSON": ("rows", lambda f: (f / "adapter.json").write_text("{"), "adapter.json, line 1, column 2: not JSON"),
    "a JSON list": ("rows", lambda f: (f / "adapter.json").write_text("[]"), "expected an object"),
    "no base": ("rows", lambda f: record(f, base=...), "base must be str, got None"),
    "a number as text": ("rows", lambda f: record(f, n_vokens="8"), "n_vokens must be int, got '8'"),
    "yes for a number": ("prefix", lambda f: record(f, prefix_length=True), "prefix_length must be int, got True"),
    "a negative length": ("prefix", lambda f: record(f, prefix_length=-3), "prefix_length must be int, got -3"),
    "another base": ("rows", lambda f: record(f, base_sha256="0" * 64), "another base, that-base: the sizes differ"),
    "other vokens": ("rows", lambda f: record(f, n_vokens=4), "another base, that-base: the sizes differ"),
    "a prefix that is none": ("rows", lambda f: record(f, prefix_length=3), "vokens.safetensors: it lacks prefix"),
    "another prefix": ("prefix", lambda f: record(f, prefix_length=10**9), "prefix is .* is needed"),
    "a prefix unsaid": ("prefix", lambda f: record(f, prefix_length=0), "it holds besides prefix"),
    "LoRA that is none": ("rows", lambda f: record(f, lora=True), "says that there is LoRA, but that is not so"),
    "LoRA unsaid": ("lora", lambda f: record(f, lora=False), "says that there is no LoRA, but that is not so"),
    "no rows": ("rows", lambda f: (f / "vokens.safetensors").unlink(), "no such file: .*vokens.safetensors"),
    "half a file of rows": (
        "rows",
        lambda f: (f / "vokens.safetensors").write_bytes((f / "vokens.safetensors").read_bytes()[:-9]),
        "vokens.safetensors is no safetensors file, or a broken one",
    ),
    "no head": ("rows", lambda f: tensors(f, "vokens.safetensors", lambda c: c.pop("head")), "it lacks head"),
    "a row too few": (
        "rows",
        lambda f: tensors(f, "vokens.safetensors", halve_last),
        r"head is \[4, 32\], but \[8, 32\]",
    ),
    "a row of NaN": ("rows", lambda f: tensors(f, "vokens.safetensors", nan_at_end("head")), "head are not finite"),
    "a prefix of NaN": ("prefix", lambda f: tensors(f, "vokens.safetensors", nan_at_end("prefix")), "not finite"),
    "whole numbers": (
        "rows",
        lambda f: tensors(f, "vokens.safetensors", lambda c: c.update(head=torch.ones(8, 32, dtype=torch.int64))),
        "head is torch.int64",
    ),
    "no fingerprint": ("rows", lambda f: (f / "base.safetensors").unlink(), "no such file: .*base.safetensors"),
    "an empty fingerprint": ("rows", lambda f: tensors(f, "base.safetensors", lambda c: c.clear()), "it lacks samples"),
    "another fingerprint": (
        "rows",
        lambda f: tensors(f, "base.safetensors", lambda c: c["samples"].add_(1)),
        "another base, that-base: the weights differ",
    ),
    "a fingerprint of NaN": (
        "rows",
        lambda f: tensors(f, "base.safetensors", nan_at_end("samples")),
        "samples are not finite",
    ),
    "no LoRA weights": ("lora", lambda f: (f / LORA).unlink(), "no such file: .*adapter_model.safetensors"),
    "no LoRA config": ("lora", lambda f: (f / "lora/adapter_config.json").unlink(), "adapter_config.json"),
    "a broken LoRA config": ("lora", lambda f: (f / "lora/adapter_config.json").write_text("?"), "not JSON"),
    "half a LoRA": ("lora", lambda f: tensors(f, LORA, pop_last), "adapter_model.safetensors: it lacks base_model"),
    "too much LoRA": ("lora", lambda f: tensors(f, LORA, lambda c: c.update(x=torch.ones(1))), "it holds besides x"),
    "LoRA of NaN": (
        "lora",
        lambda f: tensors(f, LORA, lambda c: c[sorted(c)[-1]].fill_(torch.nan)),
        "lora_B.weight are not finite",
    ),
    "another rank": ("lora", lambda f: peft(f, r=2), r"is \[4, 32\], but \[2, 32\] is needed"),
    "no rank": ("lora", lambda f: peft(f, r=0), "adapter_config.json cannot be attached"),
    "a rank that is none": ("lora", lambda f: peft(f, r="four"), "adapter_config.json cannot be attached"),
    "layers that are none": (
        "lora",
        lambda f: peft(f, target_modules=["mine"]),
        "adapter_config.json cannot be attached",
    ),
    "other layers": ("lora", lambda f: peft(f, target_modules=["q_proj"]), "it holds besides base_model"),
    "the head": ("lora", lambda f: peft(f, target_modules=["lm_head"]), "changes the embedding table or the head"),
    "another kind": ("lora", lambda f: peft(f, peft_type="IA3"), "adapter_config.json cannot be attached"),
    "biases": ("lora", lambda f: peft(f, bias="all"), "it is no low-rank adapter alone"),
    "no mapper": ("rows", lambda f: shutil.rmtree(f / "mapper"), "No such file or directory: .*mapper/config.json"),
    "half a mapper": ("rows", lambda f: tensors(f, MAPPER, pop_last), "no whole VokenMapper: it lacks"),
    "a mapper of NaN": ("rows", lambda f: tensors(f, MAPPER, nan_at_end("queries")), "queries are not finite"),
    "another mapper": (
        "rows",
        lambda f: (f / "mapper/config.json").write_text(
            (f / "mapper/config.json").read_text().replace('"num_heads": 8', '"num_heads": 4')
        ),
        "num_heads is 4, but the base's mapper has 8",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_wrong_is_said_and_nothing_is_attached(pipe, folder, kind):
    which, breaks, says = BROKEN[kind]
    broken = folder(which)
    breaks(broken)
    before = everything(pipe)
    with pytest.raises((OSError, ValueError), match=says) as caught:
        pipe.load_adapter(broken)
    assert "\n" not in str(caught.value)
    assert same(everything(pipe), before)


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_ones_are_attached(small_folder, adapters, kind):
    fresh = MiniGPT5Pipeline.from_pretrained(small_folder)
    before = everything(fresh)
    fresh.load_adapter(adapters / kind)
    assert not same(everything(fresh), before)


def test_ways_to_begin_that_change_the_base_do_not(small_folder, folder):
    """PiSSA takes the largest singular vectors out of the weights, which an adapter that is loaded must not."""
    fresh = MiniGPT5Pipeline.from_pretrained(small_folder)
    plain = MiniGPT5Pipeline.from_pretrained(small_folder)
    broken = folder("lora")
    plain.load_adapter(broken)
    peft(broken, init_lora_weights="pissa")
    fresh.load_adapter(broken)
    ours, theirs = fresh.comprehension.state_dict(), plain.comprehension.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_another_connector_is_one_line(pipe, folder):
    broken = folder("rows")
    sizes = {name: pipe.mapper.config[name] for name in ("voken_dim", "text_dim")}
    shutil.rmtree(broken / "mapper")
    QueryConnector(**sizes, num_layers=1, head_dim=8).save_pretrained(broken / "mapper")
    before = everything(pipe)
    with pytest.raises(ValueError, match="is a QueryConnector, but this pipeline's connector is a VokenMapper") as told:
        pipe.load_adapter(broken)
    assert "\n" not in str(told.value)
    assert same(everything(pipe), before)


def test_an_adapter_that_was_trained_with_dropout_replies_without(small_folder, tmp_path):
    trained = MiniGPT5Pipeline.from_pretrained(small_folder)
    train_adapter(trained, LoraSettings(rank=4, dropout=0.9))
    with torch.no_grad():
        for name, parameter in trained.comprehension.named_parameters():
            parameter += 0.1 * ("lora_B" in name)
    save_adapter(trained, tmp_path / "lora", "that-base")
    pipe = MiniGPT5Pipeline.from_pretrained(small_folder)
    pipe.load_adapter(tmp_path / "lora")
    assert not any(module.training for module in pipe.comprehension.modules() if isinstance(module, nn.Dropout))
    states = []
    with torch.no_grad():
        for seed in range(2):
            torch.manual_seed(seed)
            states.append(pipe.reader.prefill(pipe.encode_prompt(["Draw a red fox."])).last)
        assert torch.equal(*states)
        pipe.fuse_adapter()
        fused = pipe.reader.prefill(pipe.encode_prompt(["Draw a red fox."])).last
    torch.testing.assert_close(states[0], fused, rtol=1e-4, atol=1e-4)
