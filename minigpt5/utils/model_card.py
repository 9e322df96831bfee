"""The card that goes with a saved pipeline."""

from __future__ import annotations

from diffusers import DiffusionPipeline


def model_card(pipe: DiffusionPipeline, source: str = "PATH_OR_REPOSITORY") -> str:
    """A model card: what the parts are, how large, and how to run them once `source` is opened."""
    rows = []
    for name, part in pipe.components.items():
        if part is None:
            continue
        parameters = f"{sum(p.numel() for p in part.parameters()) / 1e6:,.2f} M" if hasattr(part, "parameters") else "–"
        rows.append(f"| {name} | {type(part).__name__} | {parameters} |")
    table = "\n".join(rows)
    return f"""---
library_name: diffusers
pipeline_tag: any-to-any
tags: [minigpt5, text-to-image, image-to-text, interleaved]
---

# MiniGPT-5 pipeline

Reads interleaved text and pictures and replies in kind (MiniGPT-5, arXiv 2310.02239).

| part | class | parameters |
|---|---|---|
{table}

```python
from minigpt5 import MiniGPT5Pipeline

pipe = MiniGPT5Pipeline.from_pretrained("{source}")
reply = pipe("What happens next? <ImageHere>", images=[picture])
print(reply.text[0])
```

Defaults: guidance scale {pipe.config["guidance_scale"]}, {pipe.config["num_inference_steps"]} denoising steps.
"""
