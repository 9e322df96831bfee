"""The connector of today's kind."""

import pytest
import torch

from minigpt5 import QueryConnector

SIZES = {"voken_dim": 24, "text_dim": 10, "text_length": 6, "num_layers": 2, "head_dim": 4}


@pytest.fixture
def connector():
    torch.manual_seed(0)
    return QueryConnector(**SIZES).eval()


@pytest.fixture
def text_features():
    """Channels of very different means and scales, as those of text encoders are."""
    torch.manual_seed(1)
    return torch.randn(3, 7, 10) * torch.logspace(-1, 1, 10) + torch.linspace(-20, 20, 10)


def test_every_voken_becomes_a_feature(connector):
    made = connector(torch.randn(3, 6, 24))
    assert made.shape == (3, 6, 10)
    assert connector.conditioning(torch.randn(3, 6, 24)).keys() == {"prompt_embeds"}


def test_every_feature_depends_on_every_voken(connector):
    """The encoder looks both ways."""
    features = torch.randn(1, 6, 24, requires_grad=True)
    for place in (0, 5):
        (gradient,) = torch.autograd.grad(connector(features)[0, place].square().sum(), features)
        assert gradient.abs().sum(-1).all()


def test_blocks_do_not_see_each_other(connector):
    features = torch.randn(3, 6, 24)
    assert torch.allclose(connector(features)[1:2], connector(features[1:2]), atol=1e-6)


def test_gradients_reach_every_parameter():
    connector = QueryConnector(**SIZES | {"pooled_dims": {"pooled_prompt_embeds": 5}})
    made = connector.conditioning(torch.randn(2, 6, 24))
    assert made["pooled_prompt_embeds"].shape == (2, 5)
    sum((value * torch.randn_like(value)).sum() for value in made.values()).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in connector.parameters())


def test_layers_of_the_reader_count_alike_whatever_their_scale():
    connector = QueryConnector(**SIZES | {"voken_dim": 48, "reader_layers": [-1, 3]})
    last, inner = torch.randn(2, 6, 24), torch.randn(2, 6, 24)
    made = connector(torch.cat([last, inner], -1))
    assert connector.proj_in.weight.shape == (24, 48)
    assert torch.allclose(connector(torch.cat([last, 1000 * inner], -1)), made, atol=1e-3)
    assert not torch.allclose(connector(torch.cat([last, 2 * last], -1)), made, atol=1e-2)


def test_null_features_make_features_that_differ_from_place_to_place(connector):
    null = connector(torch.zeros(1, 6, 24))
    assert null.isfinite().all() and torch.pdist(null[0]).min() > 1e-3
    assert not torch.allclose(null, connector(torch.randn(1, 6, 24)), atol=1e-2)


def test_features_begin_at_the_mean_and_scale_of_the_text_features(connector, text_features):
    connector.take_scale_of(text_features)
    made = connector(torch.randn(500, 6, 24)).flatten(0, 1)
    wanted = text_features.flatten(0, 1)
    ratio = made.square().mean().sqrt() / wanted.square().mean().sqrt()
    assert 0.8 < ratio < 1.25
    assert torch.allclose(connector.norm_out.bias, wanted.mean(0), atol=1e-5)
    assert torch.allclose(connector.norm_out.weight, wanted.std(0, correction=0), atol=1e-5)


def test_padding_is_not_measured(connector, text_features):
    mask = torch.ones(3, 7, dtype=torch.long)
    mask[:, 4:] = 0
    connector.take_scale_of(text_features.masked_fill(mask.unsqueeze(-1) == 0, 1e6), mask)
    assert torch.allclose(connector.norm_out.bias, text_features[:, :4].flatten(0, 1).mean(0), atol=1e-5)


@pytest.mark.parametrize(
    ("features", "says"),
    [
        (torch.zeros(3, 10), r"text features are \(captions, length, 10\), got \(3, 10\)"),
        (torch.zeros(3, 7, 9), r"got \(3, 7, 9\)"),
        (torch.zeros(0, 7, 10), "got none"),
        (torch.full((1, 7, 10), torch.nan), "got NaN or infinity among them"),
    ],
)
def test_a_scale_that_cannot_be_measured_is_refused(connector, features, says):
    before = connector.norm_out.weight.clone()
    with pytest.raises(ValueError, match=says):
        connector.take_scale_of(features)
    assert torch.equal(connector.norm_out.weight, before)


def test_saving_keeps_config_scale_and_output(connector, text_features, tmp_path):
    connector.take_scale_of(text_features)
    connector.save_pretrained(tmp_path)
    again, features = QueryConnector.from_pretrained(tmp_path), torch.randn(1, 6, 24)
    assert dict(again.config).items() >= SIZES.items()
    assert torch.equal(again(features), connector(features))


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ({"reader_layers": [1, 2, 3, 4, 5]}, "voken_dim is 24, which 5 reader_layers do not divide"),
        ({"head_dim": 7}, "got 7 for a"),
    ],
)
def test_numbers_that_do_not_divide_each_other_are_refused(sizes, says):
    with pytest.raises(ValueError, match=says):
        QueryConnector(**SIZES | sizes)


@pytest.mark.parametrize("shape", [(2, 5, 24), (2, 6, 23), (6, 24)])
def test_features_of_another_shape_are_refused(connector, shape):
    with pytest.raises(ValueError, match=r"voken features are \(blocks, 6, 24\), got shape"):
        connector(torch.zeros(shape))


def test_gradient_checkpointing_changes_no_gradient(connector):
    features, gradients = torch.randn(2, 6, 24), []
    for enable in (lambda: None, connector.enable_gradient_checkpointing):
        enable()
        gradients.append(torch.autograd.grad(connector(features).square().sum(), list(connector.parameters())))
    assert connector.is_gradient_checkpointing
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_pooled_vectors_are_made_where_the_weights_are(weights_leave, kind):
    connector = QueryConnector(**SIZES | {"pooled_dims": {"pooled_prompt_embeds": 5}}).eval()
    features = torch.randn(1, 6, 24)
    whole = connector.conditioning(features)
    connector.enable_group_offload("cpu", "cpu", kind, num_blocks_per_group=1)
    made = connector.conditioning(features)
    assert weights_leave and all(torch.equal(made[name], value) for name, value in whole.items())
