"""Files that are broken, lie or bring code: `import-official` ends with one line that names them, nothing written."""

import json
import os
import pickle
import re
import shutil
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from minigpt5.cli import main
from minigpt5.published.checkpoints import load_official
from minigpt5.utils.tensors import open_tensors

GOLDEN = Path(__file__).parents[1] / "golden/B"


@pytest.fixture
def files(tmp_path):
    """The six sources as arguments of the command, the folders among them copies that may be broken."""
    for name in ("llm", "sd"):
        shutil.copytree(GOLDEN / name, tmp_path / name)
    frozen = GOLDEN / "frozen"
    return {
        "llm": tmp_path / "llm",
        "sd": tmp_path / "sd",
        "vit": frozen / "eva_vit.safetensors",
        "qformer": frozen / "blip2_qformer.safetensors",
        "proj": frozen / "llama_proj.safetensors",
        "stage1": GOLDEN / "stage1.safetensors",
        "stage2": GOLDEN / "stage2.safetensors",
        "vit-heads": 3,
        "qformer-heads": 2,
    }


def run(files, tmp_path, capsys, *more):
    """The command's exit code and what it says of errors."""
    arguments = [text for name, value in files.items() for text in (f"--{name}", str(value))]
    code = main(["import-official", *arguments, "--out", str(tmp_path / "out"), *more])
    return code, capsys.readouterr().err


class Code:
    """What a pickle would run."""

    def __reduce__(self):
        return os.system, ("echo it ran",)


def truncated(path):
    torch.save(load_file(GOLDEN / "frozen/llama_proj.safetensors"), path)
    path.write_bytes(path.read_bytes()[:-400])


def zip_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(50_000_000))


def lying_header(path, **changes):
    header = {"llama_proj.bias": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))


BROKEN = {
    "truncated.pth": truncated,
    "empty.pth": lambda path: path.write_bytes(b""),
    "text.pth": lambda path: path.write_text("not a checkpoint"),
    "code.pth": lambda path: torch.save({"llama_proj.bias": Code()}, path),
    "pickle.pth": lambda path: path.write_bytes(pickle.dumps({"llama_proj.bias": Code()})),
    "bomb.pth": zip_bomb,
    "list.pth": lambda path: torch.save([torch.ones(2)], path),
    "nothing.pth": lambda path: torch.save({"epoch": 3}, path),
    "numbered.pth": lambda path: torch.save({0: torch.ones(2)}, path),
    "sparse.pth": lambda path: torch.save({"llama_proj.bias": torch.ones(2).to_sparse()}, path),
    "endless.pth": lambda path: torch.save({"llama_proj.bias": torch.ones(1).expand(10**12)}, path),
    "empty.safetensors": lambda path: path.write_bytes(b""),
    "truncated.safetensors": lambda path: path.write_bytes(
        (GOLDEN / "frozen/llama_proj.safetensors").read_bytes()[:-1]
    ),
    "long_header.safetensors": lambda path: path.write_bytes(struct.pack("<Q", 2**40) + b"{}"),
    "lying_shape.safetensors": lambda path: lying_header(path, shape=[10**9]),
    "lying_offsets.safetensors": lambda path: lying_header(path, data_offsets=[0, 10**9]),
    "lying_type.safetensors": lambda path: lying_header(path, dtype="F77"),
    "no_numbers.safetensors": lambda path: save_file({"llama_proj.bias": torch.ones(0)}, path),
    "folder.safetensors": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("name", BROKEN)
@pytest.mark.filterwarnings("ignore:.*sparse")
def test_broken_files_of_tensors_are_one_line(files, tmp_path, capsys, name):
    BROKEN[name](tmp_path / name)
    code, said = run(files | {"proj": tmp_path / name}, tmp_path, capsys)
    assert code == 2 and len(said.splitlines()) == 1 and name in said
    assert "it ran" not in said and not (tmp_path / "out").exists()


def write_index(folder, weight_map):
    """Lay the language model's tensors out in two shards under an index."""
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    homes = {name: f"model-{number}.safetensors" for number in (1, 2) for name in names[number - 1 :: 2]}
    for shard in set(homes.values()):
        save_file({name: tensors[name] for name in names if homes[name] == shard}, folder / shard)
    index = weight_map(homes)
    text = index if isinstance(index, str) else json.dumps({"weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)


FIRST = "lm_head.weight"
INDEXES = {
    "no JSON": (lambda homes: "{", "not JSON"),
    "no object": (lambda homes: "[]", "expected an object"),
    "no weight_map": (lambda homes: "{}", "has no weight_map"),
    "an empty weight_map": (lambda homes: {}, "has no weight_map"),
    "a list": (lambda homes: sorted(homes), "has no weight_map"),
    "numbers": (lambda homes: dict.fromkeys(homes, 1), "which is no file of this folder"),
    "the outside": (lambda homes: homes | {FIRST: "../../secret.safetensors"}, "which is no file of this folder"),
    "an absolute path": (lambda homes: homes | {FIRST: "/etc/passwd"}, "which is no file of this folder"),
    "a missing shard": (lambda homes: homes | {"more": "model-3.safetensors"}, "lacks model-3.safetensors, which its"),
    "another shard": (lambda homes: homes | {FIRST: "model-2.safetensors"}, "but in model-2.safetensors by"),
    "less": (lambda homes: {name: home for name, home in homes.items() if name != FIRST}, "and not in"),
    "more": (lambda homes: homes | {"more": "model-1.safetensors"}, "more is not in model-1.safetensors"),
    "a name twice": (lambda homes: '{"weight_map": {"a": "b", "a": "c"}}', 'says "a" twice'),
    "deep nesting": (lambda homes: '{"a": ' * 100_000, "JSON nested too deeply"),
}


@pytest.mark.parametrize("kind", INDEXES)
def test_odd_indexes_are_one_line(files, tmp_path, capsys, kind):
    weight_map, says = INDEXES[kind]
    write_index(files["llm"], weight_map)
    code, said = run(files, tmp_path, capsys)
    assert code == 2 and len(said.splitlines()) == 1 and says in said and not (tmp_path / "out").exists()


def test_what_a_missing_shard_held_is_named_with_it(files, tmp_path, capsys):
    """A download of BLIP-2 may lack the shards of its language model, but no other."""
    pipe, _ = load_official(**given(files), merge=True)
    pipe.comprehension.save_pretrained(tmp_path / "blip2")
    write_index(tmp_path / "blip2", lambda homes: homes)
    (tmp_path / "blip2/model-2.safetensors").unlink()
    code, said = run(files | {"vit": tmp_path / "blip2"}, tmp_path, capsys)
    assert code == 2 and "is missing: none of" in said and "not there are model-2.safetensors" in said


def edit(path, **values):
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


FOLDERS = {
    "a tokenizer that is none": (lambda files: (files["llm"] / "tokenizer.model").write_bytes(b"x" * 99), "tokenizer"),
    "no tokenizer": (lambda files: (files["llm"] / "tokenizer.model").unlink(), "holds neither tokenizer.model nor"),
    "a broken config": (lambda files: (files["llm"] / "config.json").write_text("{"), "not JSON"),
    "no config": (lambda files: (files["llm"] / "config.json").unlink(), "No such file"),
    "an unknown model": (lambda files: edit(files["llm"] / "config.json", model_type="mine"), "no configuration that"),
    "a text for a width": (
        lambda files: edit(files["llm"] / "config.json", hidden_size="wide"),
        "no configuration that",
    ),
    "another width": (lambda files: edit(files["llm"] / "config.json", hidden_size=64), "hidden_size is 64, but .* 48"),
    "endless layers": (lambda files: edit(files["llm"] / "config.json", num_hidden_layers=10**9), "beyond all measure"),
    "an odd activation": (lambda files: edit(files["llm"] / "config.json", hidden_act="mine"), "makes no model"),
    "odd heads": (lambda files: edit(files["llm"] / "config.json", num_attention_heads=5), "no "),
    "half a UNet": (lambda files: halve(files["sd"] / "unet/diffusion_pytorch_model.safetensors"), "unet: it lacks"),
    "no VAE": (lambda files: shutil.rmtree(files["sd"] / "vae"), "vae"),
    "no scheduler": (lambda files: shutil.rmtree(files["sd"] / "scheduler"), "scheduler"),
    "another VAE": (lambda files: edit(files["sd"] / "vae/config.json", latent_channels=3), "is needed"),
    "no index": (lambda files: (files["sd"] / "model_index.json").unlink(), "model_index.json"),
    "a broken vocabulary": (lambda files: (files["sd"] / "tokenizer/vocab.json").write_text("["), "no whole pipeline"),
}


def halve(path):
    tensors = load_file(path)
    save_file({name: tensors[name] for name in sorted(tensors)[::2]}, path, metadata={"format": "pt"})


@pytest.mark.parametrize("kind", FOLDERS)
def test_broken_folders_are_one_line(files, tmp_path, capsys, kind):
    breaks, says = FOLDERS[kind]
    breaks(files)
    code, said = run(files, tmp_path, capsys)
    assert code == 2 and len(said.splitlines()) == 1 and not (tmp_path / "out").exists()
    assert re.search(says, said)


@pytest.mark.parametrize("source", ["llm", "sd", "vit", "stage1"])
def test_files_for_folders_and_folders_for_files_are_one_line(files, tmp_path, capsys, source):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("text")
    for given in (tmp_path / "empty", tmp_path / "file.txt", tmp_path / "gone.pth"):
        code, said = run(files | {source: given}, tmp_path, capsys)
        assert code == 2 and len(said.splitlines()) == 1 and given.name in said


def changed(tmp_path, source, change):
    tensors = load_file(source)
    change(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / source.name)
    return tmp_path / source.name


LORA = "model.llama_model.base_model.model.model.layers.{}.self_attn.q_proj.lora_{}.default.weight"
TENSORS = {
    "a NaN": ("stage1", lambda t: t["fc.0.bias"][:1].fill_(torch.nan), "fc.0.bias holds other than finite"),
    "whole numbers": ("proj", lambda t: t.update({"llama_proj.bias": torch.ones(48, dtype=torch.int32)}), "finite"),
    "a flat table": ("qformer", lambda t: t.update(query_tokens=torch.ones(8)), "with 3 dimensions is needed"),
    "a name in two spellings": (
        "qformer",
        lambda t: t.update({"vision_model.post_layernorm.bias": t["ln_vision.bias"].clone()}),
        "ln_vision.bias and vision_model.post_layernorm.bias are one tensor",
    ),
    "LoRA of no layer": (
        "stage2",
        lambda t: t.update({LORA.format(9, "A"): torch.ones(8, 48), LORA.format(9, "B"): torch.ones(48, 8)}),
        "has no place in the model",
    ),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_odd_tensors_are_named(files, tmp_path, capsys, kind):
    source, change, says = TENSORS[kind]
    code, said = run(files | {source: changed(tmp_path, files[source], change)}, tmp_path, capsys)
    assert code == 2 and len(said.splitlines()) == 1 and says in said


# Heads and LoRA


def given(files, **more):
    return {name.replace("-", "_"): value for name, value in (files | more).items() if value is not None}


def test_heads_are_read_from_a_configuration_where_there_is_one(files, tmp_path, capsys):
    pipe, _ = load_official(**given(files), merge=True)
    pipe.comprehension.save_pretrained(tmp_path / "blip2")
    folders = {"vit": tmp_path / "blip2", "qformer": tmp_path / "blip2"}
    again, report = load_official(**given(files | folders | {"vit-heads": None, "qformer-heads": None}), merge=True)
    assert again.comprehension.config.vision_config.num_attention_heads == 3
    assert again.comprehension.config.qformer_config.num_attention_heads == 2
    assert report.warnings == []
    code, said = run(files | folders | {"qformer-heads": 4}, tmp_path, capsys)
    assert code == 2 and "qformer_heads is 4, but" in said and "config.json says 2" in said


def test_published_heads_at_other_widths_are_warned_of(files, tmp_path, capsys):
    code, said = run({k: v for k, v in files.items() if k != "vit-heads"}, tmp_path, capsys)
    assert code == 0
    assert (
        "warning: no file tells how many heads the vit has: 16 are taken, as published, although it is 48 wide" in said
    )
    assert "qformer" not in said
    code, said = run({k: v for k, v in files.items() if k != "qformer-heads"}, tmp_path / "other", capsys)
    assert code == 2 and "qformer is 32 wide, which 12 heads do not divide" in said


def test_rank_and_alpha_of_lora_are_options(files, tmp_path, capsys):
    widened = changed(
        tmp_path,
        files["stage2"],
        lambda t: t.update({n: torch.cat([v, v], int("lora_B" in n)) for n, v in t.items() if ".lora_" in n}),
    )
    code, said = run(files | {"stage2": widened}, tmp_path, capsys)
    assert code == 2 and "but the model needs [8, 48]" in said
    assert run(files | {"stage2": widened}, tmp_path, capsys, "--lora-rank", "16", "--lora-alpha", "4")[0] == 0
    config = json.loads((tmp_path / "out/comprehension/adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (16, 4)


def test_tensors_of_older_pickles_are_read(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert open_tensors(tmp_path / "old.pth")["a"].tolist() == [1, 1]
