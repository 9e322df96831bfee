"""The published settings are understood by their programs, up to the first step."""

import pytest

from minigpt5.training import cost, fit


@pytest.mark.parametrize(
    ("program", "config", "more"),
    [
        ("pretrain_qformer", "qformer", ("--bert", "null")),
        ("pretrain_projection", "projection", ()),
        ("tune_instructions", "instructions", ()),
        ("finetune_diffusion", "finetune_diffusion", ()),
    ],
)
def test_settings_are_read(run_program, small_world, tmp_path, capsys, program, config, more):
    places = ("--data", small_world, "--model", "storyworld-mini", "--out", tmp_path / "out")
    with pytest.raises(SystemExit) as end:
        run_program(
            f"training/{program}", "--config", f"configs/minigpt5-7b/{config}.yaml", *places, *more, "--dry_run", "true"
        )
    assert end.value.code == 0 and "together" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def queries(width, text_dim, layers=6, n_vokens=64, pooled=0):
    """Parameters of the connector of queries."""
    block = 4 * (width * width + width) + (8 * width * width + 5 * width) + 2 * 2 * width
    begin = width * width + width + n_vokens * width
    end = 2 * width + (width * text_dim + text_dim) + (text_dim * text_dim + text_dim) + 2 * text_dim
    return begin + layers * block + end + pooled * (text_dim + 1)


def sana(width, text_dim, layers=28, channels=32):
    """Parameters of SANA's transformer: linear attention, cross-attention and a convolution each layer."""
    attention = (4 * width * width + width) + (4 * width * width + 4 * width)
    expanded = 5 * width
    convolution = (width * expanded + expanded) + 10 * expanded + expanded // 2 * width
    time = (256 * width + width) + (width * width + width) + (6 * width * width + 6 * width)
    captions = (text_dim * width + width) + (width * width + width) + width
    ends = (channels * width + width) + (width * channels + channels) + 2 * width
    return layers * (attention + convolution + 6 * width) + time + captions + ends


@pytest.mark.parametrize("stage", ["align", "interleaved-vist"])
@pytest.mark.parametrize(
    ("name", "parameters", "width", "lora"),
    [
        (
            "qwen2.5-vl-3b+sana-0.6b",
            {"comprehension": 3_754_622_976, "mapper": queries(2048, 2304), "transformer": sana(1152, 2304)},
            2048,
            36 * 8 * ((2048 + 2048) + (2048 + 2 * 128)),
        ),
        (
            "qwen2.5-vl-7b+flux.1",
            {"comprehension": 8_292_166_656, "mapper": queries(3584, 4096, pooled=768), "transformer": 11_901_408_320},
            3584,
            28 * 8 * ((3584 + 3584) + (3584 + 4 * 128)),
        ),
    ],
    ids=["3b", "7b"],
)
def test_a_joined_pair_in_published_shapes_is_counted(run_program, monkeypatch, stage, name, parameters, width, lora):
    """The readers and transformers have as many parameters as their published weights."""
    program = {"align": "align_vokens", "interleaved-vist": "train_interleaved"}[stage]
    told = []
    monkeypatch.setattr(fit, "cost_table", lambda parts: told.extend(parts) or cost.cost_table(parts))
    places = ("--data", "nowhere", "--model", name, "--out", "nowhere")
    with pytest.raises(SystemExit) as end:
        run_program(
            f"training/{program}", "--config", f"configs/minigpt5-7b/{stage}.yaml", *places, "--dry_run", "true"
        )
    assert end.value.code == 0
    added = 2 * 64 * width + (lora if stage == "interleaved-vist" else 0)
    parts = {part.name: part for part in told}
    counts = parameters | {"comprehension": parameters["comprehension"] + added}
    assert {part: parts[part].parameters for part in counts} == counts
    learns = {"comprehension": added, "mapper": parameters["mapper"]}
    assert {name: part.trainable for name, part in parts.items() if part.trainable} == learns
    for part, count in learns.items():
        # Frozen weights in bf16; what trains, its gradients and both moments of AdamW in fp32.
        assert parts[part].weights == 2 * (counts[part] - count) + 4 * count
        assert parts[part].gradients == 4 * count
        assert parts[part].optimizer == 8 * count
