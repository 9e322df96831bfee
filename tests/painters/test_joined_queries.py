"""The query connector before painters of every family: it makes what each wants, at the scale of its text features."""

import pytest
import torch

from minigpt5 import QueryConnector
from minigpt5.vokens.query_connector import CAPTIONS, measure_scale


@pytest.fixture
def connector(painter):
    shapes = painter.shapes()
    _, width = shapes.pop("prompt_embeds")
    torch.manual_seed(0)
    return QueryConnector(
        voken_dim=24,
        text_dim=width,
        text_length=6,
        num_layers=1,
        head_dim=4,
        pooled_dims={name: pooled for name, (pooled,) in shapes.items()} or None,
    )


def test_it_begins_at_the_scale_of_the_painter_s_text_features(painter, connector):
    measure_scale(connector, painter)
    with torch.no_grad():
        told = painter.encode_captions(CAPTIONS)
        made = connector(torch.randn(64, 6, 24))
    features = told["prompt_embeds"].float()
    features = features[told["mask"].bool()] if "mask" in told else features.flatten(0, 1)
    ratio = made.square().mean().sqrt() / features.square().mean().sqrt()
    assert 0.8 < ratio < 1.25


def test_it_makes_what_the_painter_wants(painter, connector):
    connector.eval()
    with torch.no_grad():
        conditioning, null = (
            connector.conditioning(features) for features in (torch.randn(2, 6, 24), torch.zeros(1, 6, 24))
        )
        painter.check_conditioning(conditioning)
        options = {"height": painter.side, "width": painter.side, "num_inference_steps": 1, "output_type": "latent"}
        generator = [torch.Generator().manual_seed(seed) for seed in range(2)]
        led = null if painter.guides(3.0) else None
        pictures = painter.paint(conditioning, led, 3.0, generator=generator, **options)
    assert len(pictures) == 2 and all(picture.isfinite().all() for picture in pictures)


def test_the_painter_s_loss_reaches_all_of_it(painter, connector):
    conditioning = connector.conditioning(torch.randn(2, 6, 24))
    latents = torch.randn(2, *painter.latent_shape(painter.side, painter.side))
    painter.loss(latents, conditioning).backward()
    for name, parameter in connector.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name
