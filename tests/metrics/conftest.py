"""Tiny random CLIPs and feature modules in the place of the published weights."""

from __future__ import annotations

import random
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.scene import sample_scene

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import clip
    from clip.model import CLIP

TINY = {
    "embed_dim": 24,
    "image_resolution": 32,
    "vision_layers": 2,
    "vision_width": 64,
    "vision_patch_size": 8,
    "context_length": 77,
    "vocab_size": 49408,
    "transformer_width": 64,
    "transformer_heads": 1,
    "transformer_layers": 2,
}


@pytest.fixture(scope="session")
def scenes():
    """Twelve scenes."""
    return [sample_scene(random.Random(f"metrics/{seed}")) for seed in range(12)]


@pytest.fixture(scope="session")
def renders(scenes):
    """A picture of each scene."""
    return [draw(scene) for scene in scenes]


@pytest.fixture(scope="session")
def blots():
    """Twelve pictures of noise, wider than high."""
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)) for _ in range(12)]


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory):
    """A tiny random CLIP of OpenAI's architecture, as a file of weights."""
    torch.manual_seed(0)
    model = CLIP(**TINY)
    # The released ones differ from picture to picture and text to text more than fresh weights do.
    for weight in model.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    file = tmp_path_factory.mktemp("clip") / "tiny.pt"
    torch.save(model.half().float().state_dict(), file)
    return file


@pytest.fixture(scope="session")
def clip_encoder(clip_file):
    """An encoder around it."""
    from minigpt5.metrics import ClipEncoder

    return ClipEncoder(clip_file)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A tiny random CLIP of transformers with its processor, as a folder."""
    from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, CLIPProcessor, CLIPTokenizer

    torch.manual_seed(0)
    words = clip.simple_tokenizer.SimpleTokenizer()
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = size | {
        "vocab_size": len(words.encoder),
        "bos_token_id": 49406,
        "eos_token_id": 49407,
        "pad_token_id": 49407,
    }
    config = CLIPConfig(
        text_config=text,
        vision_config=size | {"image_size": 32, "patch_size": 8},
        projection_dim=24,
        logit_scale_init_value=3.5,
    )
    folder = tmp_path_factory.mktemp("clip") / "transformers"
    CLIPModel(config).save_pretrained(folder)
    tokenizer = CLIPTokenizer(words.encoder, list(words.bpe_ranks))
    pixels = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    CLIPProcessor(pixels, tokenizer).save_pretrained(folder)
    return folder


class TinyFeatures(nn.Module):
    """Six features of uint8 pictures of any size, of little noise and full rank."""

    num_features = 6

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(12, 6, generator=generator), requires_grad=False)

    def forward(self, pixels):
        cells = nn.functional.adaptive_avg_pool2d(pixels.double() / 255, 2).flatten(1)
        return cells @ self.weight.double()


@pytest.fixture
def features():
    return TinyFeatures()


@pytest.fixture
def accumulates():
    """Check that a metric gives the same in one go, in batches and from two instances.

    `accumulates(make, *columns, **options)`: columns are the lists that `update` takes, of at least five items.
    """

    def check(make, *columns, **options):
        whole, batches, first, second = (make() for _ in range(4))
        whole.update(*columns, **options)
        for start, stop in ((0, 1), (1, 4), (4, None)):
            batches.update(*(column[start:stop] for column in columns), **options)
        first.update(*(column[:3] for column in columns), **options)
        second.update(*(column[3:] for column in columns), **options)
        first.merge_state(second)
        wanted = {name: value.item() for name, value in whole.compute().items()}
        for metric in (batches, first):
            figures = {name: value.item() for name, value in metric.compute().items()}
            assert figures == pytest.approx(wanted, rel=1e-6, abs=1e-9)
        return SimpleNamespace(metric=whole, figures=wanted)

    return check
