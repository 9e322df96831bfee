"""The published shapes: on the meta device against the published files' keys, and small with random weights."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from accelerate import cpu_offload
from PIL import Image
from transformers import LlamaConfig

from minigpt5.published.checkpoints import Checkpoints, build_mapper, comprehension_config, expected_shapes, rename
from minigpt5.published.shapes import LLAMA_VOCABULARY, VOCABULARY, empty_parts, published_config, random_pipeline
from minigpt5.utils.programs import ProgramError, read_config
from minigpt5.utils.tensors import Tensors

PUBLISHED = json.loads((Path(__file__).parents[1] / "golden/official_checkpoint_keys.json").read_text())
SOURCES = {"stage1": "stage1", "stage2": "stage2", "qformer": "blip2_part", "proj": "minigpt4_ckpt"}


def count(shapes):
    return sum(torch.Size(shape).numel() for shape in shapes)


def published_keys(source):
    group = PUBLISHED[SOURCES[source]]
    return group.get("keys", group)


@pytest.fixture(scope="module")
def parts():
    return empty_parts()


@pytest.fixture(scope="module")
def expected(parts):
    """Our names to shapes, adapters on every query and value projection included."""
    layers = [f"language_model.model.layers.{i}.self_attn.{name}_proj" for i in range(32) for name in "qv"]
    return expected_shapes(parts["comprehension"], parts["mapper"], layers, lora_rank=8)


def eva_shapes():
    """Names and shapes of eva_vit_g.pth as BLIP-2 uses it, from its depth and width alone."""
    width, hidden = 1408, PUBLISHED["eva_vit"]["mlp_hidden"]
    shapes = {"cls_token": (1, 1, width), "pos_embed": (1, 257, width)}
    shapes |= {"patch_embed.proj.weight": (width, 3, 14, 14), "patch_embed.proj.bias": (width,)}
    for i in range(PUBLISHED["eva_vit"]["blocks"]):
        block = {f"{norm}.{leaf}": (width,) for norm in ("norm1", "norm2") for leaf in ("weight", "bias")}
        block |= {"attn.qkv.weight": (3 * width, width), "attn.q_bias": (width,), "attn.v_bias": (width,)}
        block |= {"attn.proj.weight": (width, width), "attn.proj.bias": (width,)}
        block |= {"mlp.fc1.weight": (hidden, width), "mlp.fc1.bias": (hidden,)}
        block |= {"mlp.fc2.weight": (width, hidden), "mlp.fc2.bias": (width,)}
        shapes |= {f"blocks.{i}.{name}": shape for name, shape in block.items()}
    return shapes


@pytest.mark.parametrize("source", SOURCES)
def test_every_published_key_is_a_parameter_of_the_same_shape(expected, source):
    names = {key: rename(source, key) for key in published_keys(source)}
    left_out = [key for key, name in names.items() if name is None]
    assert left_out == (["Qformer.bert.embeddings.position_ids"] if source == "qformer" else [])
    for key, name in names.items():
        if name is not None:
            assert expected[name] == tuple(published_keys(source)[key]), key


def test_every_trained_parameter_has_its_published_key(expected):
    """The way back: what stages 1 and 2 train, and what BLIP-2 and MiniGPT-4 bring, is in their files, once."""
    tables = {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight"}
    transformer = {name for name in expected if name.startswith("mapper.transformer.")}
    wanted = {
        "stage1": tables | {name for name in expected if name.startswith("mapper.")},
        "stage2": tables | transformer | {name for name in expected if ".lora_" in name},
        "qformer": {name for name in expected if name.startswith(("qformer.", "vision_model.post_layernorm."))}
        | {"query_tokens"},
        "proj": {"language_projection.weight", "language_projection.bias"},
    }
    for source, names in wanted.items():
        found = [rename(source, key) for key in published_keys(source)]
        assert sorted(filter(None, found)) == sorted(names)


def test_counts_are_the_published_ones(parts, expected):
    summary = PUBLISHED["summary"]
    tables = [expected["language_model.model.embed_tokens.weight"], expected["language_model.lm_head.weight"]]
    mapper = {name: parameter.shape for name, parameter in parts["mapper"].named_parameters()}
    transformer = [shape for name, shape in mapper.items() if name.startswith("transformer.")]
    assert count(tables) == summary["embed_plus_head_elements"] == 262_217_728
    assert count(transformer) == summary["mapping_elements"] == 117_575_680
    assert count(shape for name, shape in mapper.items() if name.startswith("fc.")) == summary["fc_elements"]
    assert count([*tables, *mapper.values()]) == PUBLISHED["stage1"]["elements"] == 385_117_184
    lora = [shape for name, shape in expected.items() if ".lora_" in name]
    assert len(lora) == 128 and count(lora) == 4_194_304
    assert count([*tables, *transformer, *lora]) == PUBLISHED["stage2"]["elements"] == 383_987_712
    language_model = parts["comprehension"].language_model.parameters()
    assert count(p.shape for p in language_model) == summary["llm_parameters_with_32009_rows"] == 6_738_489_344
    # The file's ViT has a bias of queries and one of values; between them BLIP-2's module has the keys' zeros.
    vit = count(p.shape for p in parts["comprehension"].vision_model.parameters())
    assert vit == PUBLISHED["eva_vit"]["elements_estimate"] + 2 * 1408 + 39 * 1408
    assert count(p.shape for p in parts["unet"].parameters()) == 865_910_724
    assert count(p.shape for p in parts["vae"].parameters()) == 83_653_863
    assert count(p.shape for p in parts["text_encoder"].parameters()) == 340_387_840


def test_the_import_would_build_the_same_model(parts, expected):
    """What `load_official` works out from the published files' shapes, read from no file."""
    shapes = {source: published_keys(source) for source in SOURCES} | {"vit": eva_shapes()}
    prefix = "language_model."
    shapes["llm"] = {
        name.removeprefix(prefix): (LLAMA_VOCABULARY, *shape[1:]) if shape[0] == VOCABULARY else shape
        for name, shape in expected.items()
        if name.startswith(prefix) and ".lora_" not in name
    }
    weights = Checkpoints({name: Tensors(Path(name), keys, read=None) for name, keys in shapes.items()})
    weights.check(expected)
    assert len(weights.adapters()) == 64
    text_config = LlamaConfig(**published_config().text_config.to_dict() | {"vocab_size": LLAMA_VOCABULARY})
    config = comprehension_config(weights, text_config, VOCABULARY - 1, vit_heads=16, qformer_heads=12)
    assert config.to_dict() == published_config().to_dict()
    with torch.device("meta"):
        mapper = build_mapper(weights)
    assert mapper.config.num_heads == parts["mapper"].config.num_heads
    shapes = [{name: p.shape for name, p in part.named_parameters()} for part in (mapper, parts["mapper"])]
    assert shapes[0] == shapes[1]


def test_a_scale_that_divides_no_width_is_refused():
    with pytest.raises(ValueError, match="scale must be one of 1, 2, 4, 8, 16, 32, got 3"):
        empty_parts(3)


def reply(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe(
        "<ImageHere> What is next?",
        Image.new("RGB", (50, 40), "red"),
        image_mode="always",
        max_new_tokens=2,
        num_inference_steps=1,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    )


def test_a_scaled_pipeline_reads_and_paints_also_with_its_layers_offloaded():
    pipe = random_pipeline(scale=32)
    whole = reply(pipe)
    assert whole.images[0][0].shape == (3, 64, 64)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and name not in pipe._exclude_from_cpu_offload:
            # What `enable_sequential_cpu_offload` does, which wants a GPU.
            cpu_offload(part, torch.device("cpu"), offload_buffers=bool(part._parameters))
    assert {p.device.type for p in pipe.comprehension.parameters()} == {"meta"}
    assert torch.equal(reply(pipe).images[0][0], whole.images[0][0])


@pytest.fixture
def measure():
    """The benchmark program, called with a command line."""
    program = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks/benchmark_published.py"))

    def run(*arguments):
        return program["main"](read_config(program["PublishedBenchmark"], "", arguments))

    return run


def test_the_benchmark_measures_every_part(measure, tmp_path, capsys):
    few = ["--tokens", "2", "--steps", "1", "--repeats", "1"]
    given = ["--dtype", "float32", "--device", "cpu", "--bandwidth", "20", "--flops", "0.1"]
    measure("--scale", "32", *few, *given, "--out", str(tmp_path / "figures.json"))
    record = json.loads((tmp_path / "figures.json").read_text())
    by_hand = {name: figure for name, figure in record["parts"].items() if "mapper" in name or "UNet" in name}
    for part, figure in zip(("mapper", "unet"), by_hand.values(), strict=True):
        assert figure["weights"] == 4 * count(p.shape for p in empty_parts(32)[part].parameters())
        assert figure["bound"] == max(figure["weights"] / 20e9, figure["flops"] / 0.1e12)
    assert len(record["parts"]) == 7
    assert all(figure["flops"] > 0 and figure["seconds"] > 0 for figure in record["parts"].values())
    assert "20.0 GB/s, 0.10 TFLOP/s" in capsys.readouterr().out


def test_the_benchmark_refuses_what_does_not_fit(measure, monkeypatch):
    available = type("Memory", (), {"available": 20 * 2**30})
    monkeypatch.setattr("psutil.virtual_memory", lambda: available)
    with pytest.raises(ProgramError, match=r"35.2 GiB of cpu memory needed, 20.0 free; try --dtype bfloat16"):
        measure("--dtype", "float32", "--device", "cpu")
    with pytest.raises(ProgramError, match="there is no GPU"):
        measure("--device", "cpu", "--offload", "model")


def test_the_table_of_memory_is_that_of_the_shapes(measure, capsys):
    measure("--memory")
    lines = capsys.readouterr().out.splitlines()
    weights = sum(
        count(p.shape for p in part.parameters()) for name, part in empty_parts().items() if "text" not in name
    )
    assert f"{4 * weights / 2**30:.2f}" in lines[1] and f"{2 * weights / 2**30:.2f}" in lines[2]
