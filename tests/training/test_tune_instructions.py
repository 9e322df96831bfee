import json

import pytest
import torch
from families import Families

from minigpt5 import MiniGPT5Pipeline
from minigpt5.readers.opening import open_model

CONFIG = "configs/storyworld-mini/instructions.yaml"
FEW = ("--steps", 2, "--batch_size", 4, "--judged", 1, "--told", 2, "--report_to", "null")


@pytest.fixture
def arguments(small_world, tmp_path):
    return ("--config", CONFIG, "--data", small_world, "--model", "storyworld-mini", "--out", tmp_path / "out", *FEW)


@pytest.mark.parametrize("mix", ["{instruct: 4}", "{caption: 2, instruct: 2}"])
def test_descriptions_are_asked_for_and_told(run_program, arguments, tmp_path, capsys, mix):
    run_program("training/tune_instructions", *arguments, "--mix", mix)
    said = capsys.readouterr().out
    assert said.count("told '") == 2 and "minus_loss" in said
    assert MiniGPT5Pipeline.from_pretrained(tmp_path / "out/model").processor.n_vokens == 8


def test_chats_of_ones_own_also_without_pictures(run_program, arguments, small_world, tmp_path):
    (tmp_path / "chat").mkdir()
    picture = str(next((small_world / "cc3m/train").glob("*.png")))
    seen = [{"type": "image", "image": picture}, {"type": "text", "text": "Who is it?"}]
    bare = {"messages": [{"role": "user", "content": "Hello."}, {"role": "assistant", "content": "Hello!"}]}
    shown = {"messages": [{"role": "user", "content": seen}, {"role": "assistant", "content": "A friend."}]}
    # One row a batch, so that one of the two has no picture at all.
    (tmp_path / "chat/train.jsonl").write_text(f"{json.dumps(bare)}\n{json.dumps(shown)}\n")
    (tmp_path / "chat/validation.jsonl").write_text(json.dumps(shown) + "\n")
    single = ("--batch_size", 1, "--mix", "{chat: 1}", "--data", tmp_path)
    run_program("training/tune_instructions", *arguments, *single)
    assert (tmp_path / "out/model/model_index.json").exists()


@pytest.mark.parametrize(
    ("family", "what", "learns"),
    [
        ("minigpt_v2", ("--lora.rank", 2), ("multi_modal_projector", "q_proj.weight", "v_proj.weight")),
        ("cogvlm", ("--trains", "[connector, visual_expert]"), ("multi_modal_projector", ".vision.")),
    ],
)
def test_settings_say_what_of_a_reader_learns(run_program, arguments, texts, tmp_path, family, what, learns):
    folder = tmp_path / "reader"
    for part in Families(texts)(family):
        part.save_pretrained(folder)
    more = ("--model", folder, "--mix", "{instruct: 4}", "--learning_rate", 0.01, "--warmup_steps", 0)
    run_program("training/tune_instructions", *arguments, *more, *what)
    (old, _), (new, _) = open_model(folder), open_model(tmp_path / "out/model")
    own, rows = new.state_dict(), len(old.get_input_embeddings().weight)
    changed = {
        name
        for name, value in old.state_dict().items()
        if not torch.equal(own[name][:rows], value.half().float()[:rows])
    }
    assert all(any(part in name for part in learns) for name in changed)
    assert all(any(part in name for name in changed) for part in learns)


@pytest.mark.parametrize("family", ["composed_llava", "qwen2_vl"])
def test_frozen_parts_in_bf16_tell_what_they_learnt(run_program, arguments, texts, tmp_path, capsys, family):
    """What trains is float32, so that replies are told under the precision of a step."""
    folder = tmp_path / "reader"
    for part in Families(texts)(family):
        part.save_pretrained(folder)
    low = ("--dtype", "bfloat16", "--mix", "{instruct: 4}")
    run_program("training/tune_instructions", *arguments, "--model", folder, *low)
    assert capsys.readouterr().out.count("told '") == 2


def test_a_part_that_is_not_there_is_one_line(refused, arguments):
    told = refused("training/tune_instructions", *arguments, "--mix", "{instruct: 4}", "--trains", "visual_expert")
    assert told == "trains: Blip2ForConditionalGeneration has no visual_expert\n"
    told = refused("training/tune_instructions", *arguments, "--mix", "{instruct: 4}", "--trains", "eyes")
    assert told.startswith("trains is 'eyes', must be one of connector, qformer, encoder, visual_expert, norms")
