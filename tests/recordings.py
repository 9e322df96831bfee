"""Recordings of the published program, one a tiny model: the folders of `golden/` with a `config.json`."""

import json
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden"
VARIANTS = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))


def settings_of(variant):
    """Sizes, special ids and settings of a recorded model."""
    return json.loads((GOLDEN / variant / "config.json").read_text())


def sources(variant):
    """The recorded model's checkpoints, as the arguments of `load_official`."""
    folder, settings = GOLDEN / variant, settings_of(variant)
    given = {
        "llm": folder / "llm",
        "vit": folder / "frozen/eva_vit.safetensors",
        "qformer": folder / "frozen/blip2_qformer.safetensors",
        "proj": folder / "frozen/llama_proj.safetensors",
        "sd": folder / "sd",
        "stage1": folder / "stage1.safetensors",
        "vit_heads": settings["vit"]["heads"],
        "qformer_heads": settings["qformer"]["heads"],
    }
    if settings["stage2"]:
        given["stage2"] = folder / "stage2.safetensors"
        given |= {"lora_rank": settings["lora"]["r"], "lora_alpha": settings["lora"]["alpha"]}
    return given


def of_stage(number):
    """The first recorded model that the first stage alone has trained, or the second as well."""
    return next(variant for variant in VARIANTS if settings_of(variant)["stage2"] == (number == 2))
