import pytest
import torch
from families import Families

from minigpt5 import MiniGPT5Pipeline
from minigpt5.readers.opening import open_model

CONFIG = "configs/storyworld-mini/projection.yaml"
FEW = ("--steps", 3, "--batch_size", 4, "--mix", "{pair: 3, story_pair: 1}", "--judged", 1, "--report_to", "null")


@pytest.fixture
def arguments(small_world, tmp_path):
    return ("--config", CONFIG, "--data", small_world, "--model", "storyworld-mini", "--out", tmp_path, *FEW)


@pytest.mark.parametrize("fresh", ["true", "false"])
def test_only_the_projection_changes(run_program, arguments, tmp_path, capsys, fresh):
    run_program("training/pretrain_projection", *arguments, "--fresh", fresh, "--gradient_checkpointing", "true")
    assert "minus_loss" in capsys.readouterr().out
    old, new = MiniGPT5Pipeline.from_pretrained("storyworld-mini"), MiniGPT5Pipeline.from_pretrained(tmp_path / "model")
    for name, part in old.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        theirs = part.state_dict()
        changed = {key for key, own in getattr(new, name).state_dict().items() if not torch.equal(own, theirs[key])}
        projection = {"language_projection.weight", "language_projection.bias"}
        assert changed == (projection if name == "comprehension" else set())
    moved = (new.comprehension.language_projection.weight - old.comprehension.language_projection.weight).abs().max()
    assert (moved > 0.05) == (fresh == "true")


def test_frozen_weights_may_be_bfloat16(run_program, arguments, tmp_path, capsys):
    run_program("training/pretrain_projection", *arguments, "--dtype", "bfloat16", "--fresh", "false")
    assert "loss nan" not in capsys.readouterr().out
    assert (tmp_path / "model" / "model_index.json").exists()


@pytest.mark.parametrize("family", ["qwen_vl", "llava"])
def test_any_reader_s_connector_learns_and_its_folder_is_written(run_program, arguments, texts, tmp_path, family):
    """Also of a reader without vokens, which then has some."""
    folder = tmp_path / "reader"
    for part in Families(texts)(family):
        part.save_pretrained(folder)
    run_program("training/pretrain_projection", *arguments, "--model", folder, "--out", tmp_path / "out")
    (old, _), (new, processor) = open_model(folder), open_model(tmp_path / "out/model")
    assert type(new) is type(old) and "[IMG7]" in processor.tokenizer.get_added_vocab()
    own, rows = new.state_dict(), len(old.get_input_embeddings().weight)
    changed = {
        name
        for name, value in old.state_dict().items()
        if not torch.equal(own[name][:rows], value.half().float()[:rows])
    }
    assert changed and all("multi_modal_projector" in name for name in changed)
