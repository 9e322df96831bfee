"""A model folder is whole, or one error says all that is wrong with it."""

import json
import shutil
from contextlib import nullcontext

import pytest
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from minigpt5 import MiniGPT5Pipeline, VokenMapper
from minigpt5.utils.integrity import check_counts, few, load_whole, local_folder, non_finite
from minigpt5.utils.tensors import open_tensors

WEIGHTS = {
    "comprehension": "model.safetensors",
    "mapper": "diffusion_pytorch_model.safetensors",
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


@pytest.fixture
def folder(small_folder, tmp_path):
    """A pipeline folder to be broken."""
    return shutil.copytree(small_folder, tmp_path / "model")


def change(folder, part, edit):
    """Give a part's file other tensors."""
    file = folder / part / WEIGHTS[part]
    tensors = load_file(file)
    edit(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, file, metadata={"format": "pt"})


def configure(folder, file, **values):
    """Give a JSON file other values."""
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | values))


def refusal(folder, kind=ValueError):
    """What opening the folder says."""
    with pytest.raises(kind) as caught:
        MiniGPT5Pipeline.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_whole_folder_opens(small_folder):
    pipe = MiniGPT5Pipeline.from_pretrained(small_folder)
    assert pipe.text_encoder is not None and pipe.config._name_or_path == str(small_folder)


@pytest.mark.parametrize("part", WEIGHTS)
def test_half_a_file_is_named_by_part_and_tensor(folder, part):
    def halve(tensors):
        for name in sorted(tensors)[::2]:
            del tensors[name]

    first = sorted(load_file(folder / part / WEIGHTS[part]))[0].removeprefix("text_model.")
    change(folder, part, halve)
    assert f"no whole pipeline: {part}: it lacks {first}, " in refusal(folder)


def test_all_faults_of_all_parts_are_one_error(folder):
    change(folder, "mapper", lambda tensors: tensors.update(bonus=torch.ones(3)))
    change(folder, "vae", lambda tensors: tensors["quant_conv.bias"].fill_(torch.nan))
    change(folder, "unet", lambda tensors: tensors["conv_in.weight"].view(-1)[-1:].fill_(torch.inf))
    change(folder, "comprehension", lambda tensors: tensors.pop("query_tokens"))
    told = refusal(folder)
    assert "mapper: it holds besides bonus" in told
    assert "vae: numbers of quant_conv.bias are not finite" in told
    assert "unet: numbers of conv_in.weight are not finite" in told
    assert "comprehension: it lacks query_tokens" in told


def test_tensors_of_other_shapes_are_told_with_both(folder):
    change(folder, "mapper", lambda tensors: tensors.update(queries=tensors["queries"][:, :-1]))
    configure(folder, "vae/config.json", latent_channels=3)
    told = refusal(folder)
    assert " and 4 more" in told
    assert "mapper: queries is [1, 76, 32], but [1, 77, 32] is needed" in told
    assert "vae: decoder.conv_in.weight is [16, 4, 3, 3], but [16, 3, 3, 3] is needed" in told


@pytest.mark.parametrize(
    ("file", "values", "says"),
    [
        ("processor/processor_config.json", {"num_query_tokens": 8}, "num_query_tokens is 8, but comprehension's is 4"),
        ("processor/processor_config.json", {"n_vokens": 6}, "n_vokens is 6, but the number of vokens in its .* is 8"),
        ("processor/processor_config.json", {"n_vokens": 9}, "vocabulary of the processor is 431, more than .* 430"),
        ("processor/processor_config.json", {"n_vokens": 10**6}, "n_vokens must be at most 65536, got 1000000"),
        ("processor/processor_config.json", {"num_query_tokens": "4"}, "num_query_tokens must be a whole number"),
        ("comprehension/config.json", {"num_query_tokens": 8}, r"query_tokens is \[1, 4, 32\], but \[1, 8, 32\]"),
        (
            "mapper/config.json",
            {"text_length": 32},
            r"queries is \[1, 77, 32\], but \[1, 32, 32\] is needed",
        ),
        ("mapper/config.json", {"num_layers": 10**9}, "config.json: num_layers is 1000000000, which is beyond"),
        ("vae/config.json", {"layers_per_block": 10**7}, "layers_per_block is 10000000, which is beyond"),
        ("unet/config.json", {"cross_attention_dim": 10**12}, "cross_attention_dim is 1000000000000, which is"),
        (
            "model_index.json",
            {"unet": ["os", "path"]},
            "unet: os.path is no class of diffusers, transformers, minigpt5",
        ),
        ("model_index.json", {"unet": ["diffusers", "Nothing"]}, "unet: diffusers.Nothing is no class"),
        (
            "tokenizer/tokenizer_config.json",
            {"model_max_length": 12},
            "text_length is 77, but the tokenizer's .* is 12",
        ),
    ],
)
def test_settings_that_contradict_weights_or_other_parts_are_refused(folder, file, values, says):
    configure(folder, file, **values)
    with pytest.raises(ValueError, match=says):
        MiniGPT5Pipeline.from_pretrained(folder)


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "comprehension/config.json",
        "mapper/config.json",
        "unet/diffusion_pytorch_model.safetensors",
        "processor/tokenizer.json",
        "processor/processor_config.json",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
    ],
)
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00", b'{"a": ' * 5000])
def test_broken_files_are_one_line(folder, file, content):
    (folder / file).write_bytes(content)
    assert str(folder) in refusal(folder)


@pytest.mark.parametrize("file", ["model_index.json", "mapper/config.json", "vae/diffusion_pytorch_model.safetensors"])
def test_missing_files_are_named(folder, file):
    (folder / file).unlink()
    told = refusal(folder, (OSError, ValueError))
    assert file.split("/")[0] in told


def shard(folder, part):
    """Split a part's file in two, with an index; returns the second shard."""
    file = folder / part / WEIGHTS[part]
    tensors = load_file(file)
    names, stem = sorted(tensors), file.name.removesuffix(".safetensors")
    index = {}
    for number, some in ((1, names[::2]), (2, names[1::2])):
        shard = f"{stem}-0000{number}-of-00002.safetensors"
        save_file({name: tensors[name] for name in some}, file.with_name(shard), metadata={"format": "pt"})
        index |= dict.fromkeys(some, shard)
    file.unlink()
    told = {"metadata": {"total_size": 1}, "weight_map": index}
    file.with_name(f"{file.name}.index.json").write_text(json.dumps(told))
    return file.with_name(shard)


@pytest.mark.parametrize("part", ["comprehension", "unet"])
def test_shards_are_looked_through_as_well(folder, part):
    second = shard(folder, part)
    assert getattr(MiniGPT5Pipeline.from_pretrained(folder), part) is not None
    lost, *kept = sorted(load_file(second))
    tensors = load_file(second)
    save_file({name: tensors[name] for name in kept}, second, metadata={"format": "pt"})
    assert f"{lost} is not in {second.name}, where" in refusal(folder)
    second.unlink()
    assert f"lacks {second.name}, which its index names" in refusal(folder)


def test_a_variant_is_looked_through_in_place_of_the_plain_files(folder):
    tensors = load_file(folder / "mapper" / WEIGHTS["mapper"])
    del tensors["queries"]
    save_file(tensors, folder / "mapper/diffusion_pytorch_model.fp16.safetensors", metadata={"format": "pt"})
    MiniGPT5Pipeline.from_pretrained(folder)
    with pytest.raises(ValueError, match="mapper: it lacks queries"):
        MiniGPT5Pipeline.from_pretrained(folder, variant="fp16")


def test_names_of_older_versions_are_the_libraries_business(folder):
    """Transformers itself knows text encoders that were saved with a prefix and a table of positions."""

    def age(tensors):
        for name in list(tensors):
            tensors[f"text_model.{name.removeprefix('text_model.')}"] = tensors.pop(name)
        tensors["text_model.embeddings.position_ids"] = torch.arange(77).unsqueeze(0)

    change(folder, "text_encoder", age)
    MiniGPT5Pipeline.from_pretrained(folder)


def test_parts_that_are_given_are_not_read(folder):
    pipe = MiniGPT5Pipeline.from_pretrained(folder)
    shutil.rmtree(folder / "vae")
    assert MiniGPT5Pipeline.from_pretrained(folder, vae=pipe.vae, text_encoder=None).vae is pipe.vae


def test_code_of_a_folder_is_never_run(folder):
    with pytest.raises(ValueError, match="never run"):
        MiniGPT5Pipeline.from_pretrained(folder, trust_remote_code=True)
    (folder / "unet/mine.py").write_text("raise SystemExit('it ran')")
    configure(folder, "unet/config.json", auto_map={"AutoModel": "mine.Mine"})
    configure(folder, "model_index.json", unet=["mine", "Mine"])
    assert "unet: mine.Mine is no class" in refusal(folder)


@pytest.mark.parametrize(("kind", "part"), [(VokenMapper, "mapper"), (CLIPTextModel, "text_encoder")])
def test_a_part_alone_is_loaded_whole_or_not_at_all(folder, kind, part):
    assert isinstance(load_whole(kind, folder / part), kind)
    names = sorted(load_file(folder / part / WEIGHTS[part]))
    change(folder, part, lambda tensors: tensors.update({names[-1]: tensors[names[-1]][:-1]}))
    with pytest.raises(ValueError, match=rf"no whole {kind.__name__}: .* is needed"):
        load_whole(kind, folder / part)
    change(folder, part, lambda tensors: tensors.pop(names[-1]))
    with pytest.raises(ValueError, match=f"no whole {kind.__name__}: it lacks "):
        load_whole(kind, folder / part)


def test_what_is_no_model_s_folder_is_one_line(folder, tmp_path):
    with pytest.raises(OSError, match="cannot be loaded as a UNet2DConditionModel"):
        load_whole(UNet2DConditionModel, tmp_path / "gone")
    (folder / "unet/config.json").write_text("{")
    with pytest.raises(ValueError, match=r"cannot be loaded as a UNet2DConditionModel: .*config.json.*not JSON"):
        load_whole(UNet2DConditionModel, folder / "unet")


@pytest.mark.parametrize("kind", [MiniGPT5Pipeline, DiffusionPipeline])
def test_a_folder_that_is_not_there_is_not_found(kind, tmp_path):
    for name in (tmp_path / "gone", "~/gone", "a/b/c"):
        with pytest.raises(FileNotFoundError, match=f"{name} is no folder"):
            local_folder(kind, name)
    with pytest.raises(FileNotFoundError, match="gone is no folder"):
        MiniGPT5Pipeline.from_pretrained(tmp_path / "gone")


def test_numbers_that_are_not_finite_are_found_in_any_precision():
    tensors = {f"{dtype}": torch.ones(3, 2, dtype=dtype) for dtype in (torch.float32, torch.float16, torch.bfloat16)}
    assert non_finite(tensors | {"whole": torch.ones(2, dtype=torch.int64), "empty": torch.ones(0)}) == []
    for name, tensor in tensors.items():
        for value in (torch.nan, torch.inf, -torch.inf):
            assert non_finite(tensors | {name: tensor.index_fill(0, torch.tensor(1), value)}) == [name]


def test_long_lists_are_shortened():
    assert few("abc") == "a, b, c" and few("abcde") == "a, b, c and 2 more"


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("num_layers", True),
        ("num_hidden_layers", True),
        ("num_single_dit_layers", True),
        ("n_layer", True),
        ("depth", True),
        ("layers_per_block", True),
        ("max_window_layers", False),
        ("num_attention_heads", False),
        ("vision_feature_layer", False),
    ],
)
def test_only_what_counts_layers_is_bounded_by_the_number_of_tensors(tmp_path, name, refused):
    save_file({"a": torch.zeros(1), "b": torch.zeros(1)}, tmp_path / "model.safetensors")
    tensors = open_tensors(tmp_path / "model.safetensors")
    check_counts(tmp_path, {name: 2}, tensors)
    with pytest.raises(ValueError, match=f"{name} is 28, which is beyond") if refused else nullcontext():
        check_counts(tmp_path, {name: 28}, tensors)
