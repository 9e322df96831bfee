"""The feature mapper."""

import warnings

import pytest
import torch

from minigpt5 import VokenMapper


@pytest.fixture
def mapper():
    torch.manual_seed(0)
    return VokenMapper(voken_dim=12, text_dim=8, text_length=5, num_layers=2, num_heads=2)


def test_blocks_of_vokens_become_text_features(mapper):
    assert mapper(torch.randn(3, 4, 12)).shape == (3, 5, 8)


def test_blocks_do_not_see_each_other(mapper):
    features = torch.randn(3, 4, 12)
    assert torch.allclose(mapper.eval()(features)[1:2], mapper(features[1:2]), atol=1e-6)


def test_saving_keeps_config_and_output(mapper, tmp_path):
    mapper.eval().save_pretrained(tmp_path)
    again = VokenMapper.from_pretrained(tmp_path)
    features = torch.randn(1, 4, 12)
    assert dict(again.config).items() >= {"voken_dim": 12, "text_dim": 8, "text_length": 5, "num_layers": 2}.items()
    assert torch.equal(again.eval()(features), mapper(features))


def test_gradients_reach_every_parameter(mapper):
    mapper.double()(torch.randn(2, 4, 12).double()).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in mapper.parameters())
    assert mapper.queries.grad.dtype == torch.float64


def test_the_gradient_of_the_queries_is_exact(mapper):
    mapper.double()
    features = torch.randn(1, 4, 12, dtype=torch.float64)

    def output(queries):
        return torch.func.functional_call(mapper, {"queries": queries}, features)

    assert torch.autograd.gradcheck(output, mapper.queries, fast_mode=True)


def test_features_of_another_dtype_are_taken(mapper):
    assert mapper(torch.randn(1, 4, 12).half()).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_names_of_the_weights_are_those_of_nn_transformer(mapper):
    plain = torch.nn.Transformer(8, 2, 2, 2, 32, norm_first=True, batch_first=True, bias=True)
    names = {f"transformer.{name}" for name in plain.state_dict()}
    assert {name for name in mapper.state_dict() if name.startswith("transformer")} == names


def test_the_mapper_is_norm_first_without_dropout(mapper):
    features = torch.randn(1, 4, 12)
    assert torch.allclose(mapper.train()(features), mapper.eval()(features), atol=1e-6)
    assert all(layer.norm_first for layer in [*mapper.transformer.encoder.layers, *mapper.transformer.decoder.layers])


def test_building_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VokenMapper(voken_dim=12, text_dim=8, num_heads=2)
