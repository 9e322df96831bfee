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


@pytest.fixture
def plain(mapper):
    """The transformer of PyTorch with the mapper's weights."""
    transformer = torch.nn.Transformer(8, 2, 2, 2, 32, dropout=0.0, norm_first=True, batch_first=True)
    transformer.load_state_dict(mapper.transformer.state_dict())
    return transformer.double()


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_the_transformer_is_pytorch_s(mapper, plain):
    """The same names, shapes and order of weights, outputs and gradients; the published code has PyTorch's."""
    mapper.double()
    source, target = torch.randn(3, 4, 8).double().requires_grad_(), torch.randn(3, 5, 8).double()
    ours, theirs = mapper.transformer(source, target), plain(source, target)
    assert torch.allclose(ours, theirs, atol=1e-12)
    wanted = torch.randn_like(ours)
    gradients = [
        torch.autograd.grad((output * wanted).sum(), [source, *module.parameters()])
        for output, module in ((ours, mapper.transformer), (theirs, plain))
    ]
    assert all(torch.allclose(one, other, atol=1e-12) for one, other in zip(*gradients, strict=True))
    names = [[name for name, _ in module.named_parameters()] for module in (mapper.transformer, plain)]
    assert names[0] == names[1]


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
def test_new_weights_are_drawn_as_pytorch_draws_them():
    torch.manual_seed(0)
    ours = VokenMapper(voken_dim=12, text_dim=64, num_layers=1).transformer.state_dict()
    theirs = torch.nn.Transformer(64, 8, 1, 1, 256, norm_first=True, batch_first=True).state_dict()
    for name, weight in ours.items():
        assert weight.abs().max().item() == pytest.approx(theirs[name].abs().max().item(), rel=0.15), name


def test_dropout_is_nowhere(mapper):
    features = torch.randn(1, 4, 12)
    assert torch.equal(mapper.train()(features), mapper.eval()(features))


@pytest.mark.parametrize("num_heads", [3, 0])
def test_heads_must_divide_the_width(num_heads):
    with pytest.raises(ValueError, match=f"must divide the width, got {num_heads} heads for a width of 8"):
        VokenMapper(voken_dim=12, text_dim=8, num_heads=num_heads)


def test_gradient_checkpointing_changes_no_gradient(mapper):
    features, gradients = torch.randn(2, 4, 12), []
    for enable in (lambda: None, mapper.enable_gradient_checkpointing):
        enable()
        gradients.append(torch.autograd.grad(mapper(features).square().sum(), list(mapper.parameters())))
    assert mapper.is_gradient_checkpointing
    assert all(torch.allclose(one, other) for one, other in zip(*gradients, strict=True))


def test_building_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VokenMapper(voken_dim=12, text_dim=8, num_heads=2)
