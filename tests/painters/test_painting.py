"""Every family paints through its own pipeline's call."""

import numpy as np
import pytest
import torch
from PIL import Image

STEPS = 2


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


@pytest.fixture
def paint(painter, random_conditioning):
    def run(count=2, rows=slice(None), **options):
        given, null = random_conditioning(painter, count), random_conditioning(painter, 1, seed=9)
        given = {name: value[rows] for name, value in given.items()}
        options = {"generator": seeds(*range(count))[rows], "output_type": "latent", "guidance_scale": 3.0} | options
        sizes = {"height": painter.side, "width": painter.side, "num_inference_steps": STEPS}
        return painter.paint(given, null, **sizes | options)

    return run


def test_pictures_of_a_batch_are_those_painted_alone(painter, paint):
    together = paint()
    for row, picture in enumerate(together):
        alone = paint(rows=slice(row, row + 1))
        assert picture.shape == painter.latent_shape(painter.side, painter.side)
        torch.testing.assert_close(alone[0], picture, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_guidance_changes_the_picture_and_its_absence_needs_no_null_features(painter, paint):
    guided, plain = paint(), paint(guidance_scale=1.0)
    assert not torch.allclose(guided[0], plain[0], atol=1e-3)
