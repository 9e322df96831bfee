"""Importing the published checkpoints: whole, lazily, and refused with one clear error where something is wrong."""

import json
import re

import pytest
import torch
from PIL import Image
from recordings import GOLDEN, VARIANTS, of_stage, settings_of, sources
from safetensors.torch import load_file, save_file

from minigpt5 import MiniGPT5Pipeline
from minigpt5.cli import main
from minigpt5.published.checkpoints import ORDER, Checkpoints, import_official, load_official, rename
from minigpt5.utils.images import published_image_processor
from minigpt5.utils.tensors import fetch, open_tensors

STAGE2 = of_stage(2)
SIZES = settings_of(STAGE2)
WIDTH = {part: SIZES[part][name] for part, name in (("vit", "dim"), ("llm", "hidden"), ("sd", "hidden"))}


def files(variant=STAGE2):
    return sources(variant)


def changed(tmp_path, source, change):
    """Files, one of which has other tensors."""
    given = files()
    tensors = load_file(given[source])
    change(tensors)
    save_file({name: value.contiguous() for name, value in tensors.items()}, tmp_path / "changed.safetensors")
    return given | {source: tmp_path / "changed.safetensors"}


def same_weights(one, two):
    ours, theirs = one.comprehension.state_dict(), two.comprehension.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(torch.equal(a, b) for a, b in zip(one.mapper.parameters(), two.mapper.parameters(), strict=True))


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_imported_folder_is_an_ordinary_pipeline(tmp_path, variant):
    import_official(tmp_path / "model", **files(variant))
    again = MiniGPT5Pipeline.from_pretrained(tmp_path / "model")
    same_weights(load_official(**files(variant))[0], again)
    assert again.comprehension.vision_model.post_layernorm.eps == 1e-5
    assert again.comprehension.config.vision_config.layer_norm_eps == 1e-6
    settings = again.decoding_config()
    published = settings_of(variant)["generation"]
    assert {name: getattr(settings, name) for name in published} == published
    # transformers would open the image processor's torchvision variant, which differs in single 8-bit levels.
    picture = Image.open(GOLDEN / "datasets/pixels_source.png")
    published = published_image_processor(again.comprehension.config.vision_config.image_size)(
        picture, return_tensors="pt"
    )
    assert torch.equal(again.processor("<ImageHere>", picture)["pixel_values"][0], published["pixel_values"][0])
    reply = again("a small dog", max_new_tokens=3, image_mode="always", num_inference_steps=1)
    assert len(reply.images[0]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_every_tensor_of_every_file_is_used_or_named():
    _, report = load_official(**files())
    for source in ORDER:
        tensors = open_tensors(files()[source])
        named = len(report.replaced[source]) + len(report.left_out[source])
        assert report.used[source] + named == len(tensors.shapes)
    assert "replaced by a later file: " in str(report)


def test_lora_stays_an_adapter_or_is_merged_to_the_same_function():
    kept, merged = load_official(**files())[0], load_official(**files(), merge=True)[0]
    assert any("lora_A" in name for name, _ in kept.comprehension.named_parameters())
    assert not any("lora_A" in name for name, _ in merged.comprehension.named_parameters())
    ids = torch.arange(3, 30).unsqueeze(0)
    with torch.no_grad():
        ours = [pipe.comprehension.language_model(input_ids=ids).logits for pipe in (kept, merged)]
    torch.testing.assert_close(*ours, atol=1e-5, rtol=1e-4)


def test_wrong_tensors_are_named_with_both_shapes(tmp_path):
    def shorten(tensors):
        tensors["fc.0.bias"] = tensors["fc.0.bias"][:-1]

    wide = WIDTH["sd"]
    says = rf"changed.safetensors: fc.0.bias is \[{wide - 1}\], but the model needs \[{wide}\]"
    with pytest.raises(ValueError, match=says):
        load_official(**changed(tmp_path, "stage1", shorten))
    with pytest.raises(ValueError, match=r"query_bonus \[1\] is no tensor of a qformer file"):
        load_official(**changed(tmp_path, "qformer", lambda tensors: tensors.update(query_bonus=torch.ones(1))))
    with pytest.raises(ValueError, match=r"language_projection.bias is missing"):
        load_official(**changed(tmp_path, "proj", lambda tensors: tensors.pop("llama_proj.bias")))


def test_a_lora_of_another_rank_is_refused(tmp_path):
    def widen(tensors):
        for name in tensors:
            if ".lora_A." in name:
                tensors[name] = torch.cat([tensors[name]] * 2)

    rank, wide = SIZES["lora"]["r"], WIDTH["llm"]
    says = rf"lora_A.default.weight is \[{2 * rank}, {wide}\], but the model needs \[{rank}, {wide}\]"
    with pytest.raises(ValueError, match=says):
        load_official(**changed(tmp_path, "stage2", widen))


def test_stage_2_alone_is_refused():
    given = files()
    with pytest.raises(ValueError, match="it is a stage-2 file"):
        load_official(**given | {"stage1": given.pop("stage2")})


def test_a_training_checkpoint_is_read_without_its_optimizer(tmp_path):
    tensors = load_file(files()["stage1"])
    torch.save({"state_dict": tensors, "optimizer_states": [{"exp_avg": torch.ones(3)}]}, tmp_path / "stage1.ckpt")
    pipe, _ = load_official(**files() | {"stage1": tmp_path / "stage1.ckpt"})
    same_weights(pipe, load_official(**files())[0])


class Unsafe:
    """Anything but a tensor."""


def test_a_file_that_needs_code_is_refused(tmp_path):
    torch.save({"state_dict": {}, "hyper_parameters": Unsafe()}, tmp_path / "unsafe.ckpt")
    with pytest.raises(ValueError, match=r"unsafe.ckpt holds more than tensors .* refused"):
        open_tensors(tmp_path / "unsafe.ckpt")


def test_heads_that_do_not_divide_the_width_are_refused():
    heads = next(number for number in (5, 7, 11) if WIDTH["vit"] % number)
    with pytest.raises(ValueError, match=f"vit is {WIDTH['vit']} wide, which {heads} heads do not divide"):
        load_official(**files() | {"vit_heads": heads})


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no such file or folder: .*gone.ckpt"):
        fetch(tmp_path / "gone.ckpt")


def test_a_whole_eva_vit_loses_its_last_block(tmp_path):
    depth = SIZES["vit"]["depth"]

    def complete(tensors):
        tensors["norm.weight"] = torch.ones(WIDTH["vit"])
        for name in [name for name in tensors if name.startswith(f"blocks.{depth - 1}.")]:
            tensors[name.replace(f"blocks.{depth - 1}.", f"blocks.{depth}.")] = tensors[name].clone()

    pipe, report = load_official(**changed(tmp_path, "vit", complete))
    assert pipe.comprehension.config.vision_config.num_hidden_layers == depth
    assert "norm.weight" in report.left_out["vit"] and f"blocks.{depth}.norm1.weight" in report.left_out["vit"]


def test_parts_in_the_layout_of_transformers_are_the_same(tmp_path):
    pipe, _ = load_official(**files(), merge=True)
    pipe.comprehension.save_pretrained(tmp_path / "blip2")
    given = files() | {"vit": tmp_path / "blip2", "qformer": tmp_path / "blip2"}
    same_weights(load_official(**given, merge=True)[0], pipe)


def test_the_published_keys_are_all_known():
    published = json.loads((GOLDEN / "official_checkpoint_keys.json").read_text())
    for source, group in (("stage1", "stage1"), ("stage2", "stage2"), ("qformer", "blip2_part")):
        for name in published[group]["keys"]:
            rename(source, name)
    shapes = published["stage1"]["keys"].values()
    assert sum(torch.Size(shape).numel() for shape in shapes) == published["stage1"]["elements"] == 385_117_184
    lora = [shape for name, shape in published["stage2"]["keys"].items() if ".lora_" in name]
    assert sum(torch.Size(shape).numel() for shape in lora) == 4_194_304


def test_the_command_imports_and_refuses(tmp_path, capsys):
    given = {name.replace("_", "-"): str(value) for name, value in files().items()}
    arguments = [text for name, value in given.items() for text in (f"--{name}", value)]
    assert main(["import-official", *arguments, "--out", str(tmp_path / "model")]) == 0
    count = len(load_file(files()["stage2"]))
    assert re.search(rf"stage2: {count} tensors used", capsys.readouterr().out)
    assert main(["import-official", *arguments, "--out", str(tmp_path / "model")]) == 2
    assert "is there already" in capsys.readouterr().err


def test_shapes_are_read_without_the_tensors():
    weights = Checkpoints({"vit": open_tensors(files()["vit"])})
    patches = (SIZES["vit"]["img_size"] // SIZES["vit"]["patch"]) ** 2
    assert weights.shape("vision_model.embeddings.position_embedding") == (1, patches + 1, WIDTH["vit"])
