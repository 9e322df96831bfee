"""Peak memory of importing the published checkpoints, on random files in their formats.

    python benchmarks/benchmark_import.py [--scale 8]

What counts is memory that the process owns; pages of the files, which are mapped, the system can take back at any time.
The aim is the model and one tensor more.
"""

import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import PNDMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from minigpt5.published.checkpoints import import_official
from minigpt5.published.shapes import (
    LLAMA_VOCABULARY,
    SCALES,
    empty_parts,
    fill_at_random,
    published_config,
    stand_in_tokenizer,
)
from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import Settings, setting

MIB = 2**20


def write_files(folder, scale):
    """Random files as they are published, LoRA aside, by the names of `import_official`'s arguments."""
    parts = {name: fill_at_random(part, torch.float32, "cpu") for name, part in empty_parts(scale).items()}
    tensors = {name: value.contiguous() for name, value in parts["comprehension"].state_dict().items()}
    language_model = {
        name.removeprefix("language_model."): v for name, v in tensors.items() if "language_model" in name
    }
    tables = ("model.embed_tokens.weight", "lm_head.weight")
    mapper = parts["mapper"].state_dict()

    files = {name: folder / name for name in ("llm", "blip2", "sd")}
    for name in ("llm", "blip2"):
        files[name].mkdir()
    old = {name: language_model[name][:LLAMA_VOCABULARY].clone() for name in tables}
    save_file(language_model | old, files["llm"] / "model.safetensors")
    published_config(scale).text_config.save_pretrained(files["llm"])
    stand_in_tokenizer().save_pretrained(files["llm"])
    seeing = {name: value for name, value in tensors.items() if name.startswith(("vision_model", "qformer", "query"))}
    save_file(seeing, files["blip2"] / "model.safetensors")

    files |= {name: folder / f"{name}.pth" for name in ("proj", "stage1")}
    projection = {f"model.llama_proj.{leaf}": tensors[f"language_projection.{leaf}"] for leaf in ("weight", "bias")}
    torch.save({"model": projection}, files["proj"])
    stage1 = {f"model.llama_model.{name}": language_model[name] for name in tables}
    names = {"queries": "t2i_decoder_prompt"}
    stage1 |= {names.get(name, name.replace("transformer.", "llm_to_t2i_mapping.", 1)): v for name, v in mapper.items()}
    torch.save({"state_dict": stage1}, files["stage1"])
    diffusion = StableDiffusionPipeline(
        vae=parts["vae"],
        text_encoder=parts["text_encoder"],
        tokenizer=CLIPTokenizer(),
        unet=parts["unet"],
        scheduler=PNDMScheduler(skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    diffusion.save_pretrained(files["sd"])
    blip2 = files.pop("blip2")
    return files | {"vit": blip2, "qformer": blip2}


def owned_bytes():
    """Memory of this process that is no page of a file."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


class Peak(threading.Thread):
    """The most that `owned_bytes` reaches, looked at every 2 ms."""

    def __init__(self):
        super().__init__(daemon=True)
        self.most, self.stop = owned_bytes(), threading.Event()

    def run(self):
        """Look until told to stop."""
        while not self.stop.is_set():
            self.most = max(self.most, owned_bytes())
            time.sleep(0.002)


@dataclass(kw_only=True)
class ImportBenchmark(Settings):
    """What is measured."""

    scale: int = setting(8, choices=SCALES, help="divide all widths by this")


def main(config: ImportBenchmark):
    with tempfile.TemporaryDirectory() as folder:
        # In a process of its own, so that what it leaves behind is not counted.
        context = torch.multiprocessing.get_context("spawn")
        writer = context.Pool(1)
        files = writer.apply(write_files, (Path(folder), config.scale))
        writer.close()
        writer.join()
        before, peak = owned_bytes(), Peak()
        peak.start()
        heads = {"vit_heads": max(1, 16 // config.scale), "qformer_heads": max(1, 12 // config.scale)}
        import_official(Path(folder) / "model", **files, **heads)
        peak.stop.set()
        peak.join()
    sizes = [p.nbytes for part in empty_parts(config.scale).values() for p in part.parameters()]
    model, largest = sum(sizes), max(sizes)
    print(f"model                    {model / MIB:9.1f} MiB")
    print(f"its largest tensor       {largest / MIB:9.1f} MiB")
    print(f"peak above the start     {(peak.most - before) / MIB:9.1f} MiB")
    print(f"of model + one tensor    {(peak.most - before) / (model + largest):9.2f}")


if __name__ == "__main__":
    run_program(main, ImportBenchmark, __doc__)
