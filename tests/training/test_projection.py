import pytest
import torch
from torch.nn.functional import cross_entropy

from minigpt5.data.instructions import pair_example
from minigpt5.readers.processor import IGNORE_INDEX
from minigpt5.storyworld import miniature
from minigpt5.training.projection import ProjectionModel


@pytest.fixture
def model(tiny_processor):
    torch.manual_seed(0)
    size, mark = len(tiny_processor.tokenizer), tiny_processor.image_token_id
    return ProjectionModel(miniature.build_comprehension(size, mark, tiny_processor.tokenizer))


@pytest.fixture
def batch(tiny_processor, pictures):
    captions = ["a red fox.", "two birds in the forest.", "a cat.", "a blue dog on the beach."]
    pairs = zip(captions, pictures, strict=True)
    return tiny_processor.training_batch([pair_example(*pair) for pair in pairs])


def test_the_loss_is_that_of_the_captions_words(model, batch):
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "pixel_values")}
    logits = model.comprehension(**inputs).logits
    expected = cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten(), ignore_index=IGNORE_INDEX)
    torch.testing.assert_close(model(batch)["loss"], expected)


def test_only_the_projection_learns_and_pictures_are_seen_once(model, batch, count_calls):
    calls = count_calls(model.comprehension.vision_model)
    model.train()(batch)["loss"].backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert trained == {"comprehension.language_projection.weight", "comprehension.language_projection.bias"}
    assert len(calls) == 1 and calls[0][1]["pixel_values"].shape[0] == 4


def test_checkpointing_changes_no_gradient(model, batch):
    model.train()(batch)["loss"].backward()
    expected = model.projection.weight.grad.clone()
    saving = ProjectionModel(model.comprehension, gradient_checkpointing=True).train()
    saving.zero_grad()
    saving(batch)["loss"].backward()
    torch.testing.assert_close(saving.projection.weight.grad, expected)


def test_a_batch_without_pictures_has_a_gradient_of_zero(model, tiny_processor):
    chat = [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"}]
    model.train()(tiny_processor.training_batch([chat]))["loss"].backward()
    assert model.projection.weight.grad.abs().max() == 0
