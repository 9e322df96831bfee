import pytest
import torch
from families import Families
from torch.nn.functional import cross_entropy

from minigpt5.data.instructions import pair_example
from minigpt5.readers import add_vokens, reader_of
from minigpt5.readers.lora import fuse_lora
from minigpt5.readers.processor import IGNORE_INDEX
from minigpt5.storyworld import miniature
from minigpt5.training.reading import ReadingModel, parameters_of
from minigpt5.vokens.adapters import LoraSettings


@pytest.fixture
def reader(tiny_processor):
    torch.manual_seed(0)
    size, mark = len(tiny_processor.tokenizer), tiny_processor.image_token_id
    return reader_of(miniature.build_comprehension(size, mark, tiny_processor.tokenizer), tiny_processor)


@pytest.fixture
def examples(pictures):
    captions = ["a red fox.", "two birds in the forest.", "a cat.", "a blue dog on the beach."]
    return [pair_example(*pair) for pair in zip(captions, pictures, strict=True)]


@pytest.fixture
def batch(reader, examples):
    return reader.training_batch(examples)


def trained(model):
    """The names of what has a gradient."""
    return {name for name, parameter in model.comprehension.named_parameters() if parameter.grad is not None}


def test_the_loss_is_that_of_the_captions_words(reader, batch):
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    logits = reader.model(**inputs).logits
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(ReadingModel(reader)(batch)["loss"], expected)


def test_only_the_projection_learns_and_pictures_are_seen_once(reader, batch, count_calls):
    calls = count_calls(reader.model.vision_model)
    model = ReadingModel(reader).train()
    model(batch)["loss"].backward()
    assert trained(model) == {"language_projection.weight", "language_projection.bias"}
    assert len(calls) == 1 and calls[0][1]["pixel_values"].shape[0] == 4


def test_checkpointing_changes_no_gradient(reader, batch):
    projection = reader.model.language_projection
    ReadingModel(reader).train()(batch)["loss"].backward()
    expected = projection.weight.grad.clone()
    saving = ReadingModel(reader, gradient_checkpointing=True).train()
    saving.zero_grad()
    saving(batch)["loss"].backward()
    torch.testing.assert_close(projection.weight.grad, expected)


def test_checkpointing_leaves_a_frozen_language_model_without_dropout(texts, examples):
    model, processor = Families(texts)("tinygpt_v")
    for module in model.model.language_model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.5
    reader = reader_of(model, add_vokens(model, processor, 4))
    batch = reader.training_batch(examples)
    losses = [
        ReadingModel(reader, gradient_checkpointing=saves).train()(batch)["loss"] for saves in (False, True, True)
    ]
    assert losses[0] == losses[1] == losses[2]


def test_a_batch_without_pictures_has_a_gradient_of_zero(reader):
    chat = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"}]
    ReadingModel(reader).train()(reader.training_batch([chat]))["loss"].backward()
    assert reader.model.language_projection.weight.grad.abs().max() == 0


def test_what_trains_is_float32_beside_frozen_weights_in_half(reader, batch):
    exact = ReadingModel(reader)(batch)["loss"]
    model = ReadingModel(reader_of(reader.model.bfloat16(), reader.processor), ("connector", "norms")).train()
    loss = model(batch)["loss"]
    loss.backward()
    assert abs(loss - exact) < 0.05
    kinds = {name: parameter.dtype for name, parameter in model.comprehension.named_parameters()}
    assert {kinds[name] for name in trained(model)} == {torch.float32}
    assert kinds["vision_model.post_layernorm.weight"] == torch.bfloat16


@pytest.fixture
def family(texts):
    families = Families(texts)

    def build(name):
        model, processor = families(name)
        return reader_of(model, add_vokens(model, processor, 4))

    return build


LINEAR = {"multi_modal_projector.linear.weight", "multi_modal_projector.linear.bias"}


@pytest.mark.parametrize(
    ("name", "trains", "expected"),
    [
        ("minigpt_v2", ("connector",), lambda name: name.removeprefix("model.") in LINEAR),
        ("cogvlm", ("visual_expert",), lambda name: ".vision." in name),
        ("cogvlm", ("language_model",), lambda name: ".vision." not in name and "language_model" in name),
        ("tinygpt_v", ("norms",), lambda name: "language_model" in name and "norm." in name),
        ("qwen2_vl", ("connector",), lambda name: "visual.merger" in name),
        ("qwen2_vl", ("encoder",), lambda name: "visual." in name and "merger" not in name),
        ("qwen_vl", ("encoder", "connector"), lambda name: "vision_tower" in name or "projector" in name),
        ("sphinx", ("qformer",), lambda name: "qformer" in name or "query_tokens" in name),
        ("instructblip", ("qformer",), lambda name: "qformer" in name or "query_tokens" in name),
        ("llava", ("connector",), lambda name: "multi_modal_projector" in name),
    ],
)
def test_parts_of_other_readers_train(family, examples, name, trains, expected):
    reader = family(name)
    model = ReadingModel(reader, trains).train()
    model(reader.training_batch(examples))["loss"].backward()
    chosen = {name for name, parameter in model.comprehension.named_parameters() if parameter.requires_grad}
    head = {"lm_head.weight"} if trains == ("language_model",) else set()
    assert chosen == {name for name, _ in reader.model.named_parameters() if expected(name)} | head
    assert trained(model) <= chosen
    moved = [parameter for parameter in reader.model.parameters() if parameter.grad is not None]
    assert sum(float(parameter.grad.abs().sum()) for parameter in moved) > 0


def test_adapters_train_beside_the_connector_and_are_folded_in(family, examples):
    reader = family("minigpt_v2")
    model = ReadingModel(reader, ("connector",), LoraSettings(rank=2, dropout=0.5), seed=1).train()
    batch = reader.training_batch(examples)
    model(batch)["loss"].backward()
    learnt = trained(model)
    assert {name for name in learnt if "lora_" not in name} == {f"model.{name}" for name in LINEAR}
    assert len([name for name in learnt if "lora_" in name]) == 2 * 2 * 2
    with torch.no_grad():
        for name, parameter in reader.model.named_parameters():
            if "lora_" in name:
                parameter += 0.1 * torch.randn_like(parameter)
        adapted = model.eval()(batch)["loss"]
        fuse_lora(reader.model)
        torch.testing.assert_close(model(batch)["loss"], adapted, atol=1e-5, rtol=1e-5)
    assert not any("lora_" in name for name, _ in reader.model.named_parameters())


def test_a_connector_is_drawn_anew(family):
    reader = family("qwen_vl")
    before = {name: value.clone() for name, value in parameters_of(reader.model, "connector").items()}
    ReadingModel(reader).reset_connector()
    after = parameters_of(reader.model, "connector")
    moved = {name.split("multi_modal_projector.")[1] for name in after if not torch.equal(after[name], before[name])}
    weights = {"narrow.weight", "out.weight", "queries", "attention.in_proj_weight", "attention.out_proj.weight"}
    assert weights <= moved and not any("norm" in name for name in moved)


def test_parts_that_are_not_there_are_told(reader):
    with pytest.raises(ValueError, match=r"trains: \w+ has no visual_expert"):
        ReadingModel(reader, ("visual_expert",))
    with pytest.raises(ValueError, match="trains: nothing would train"):
        ReadingModel(reader, ())
