"""Any bytes in any file of a model, processor, adapter or checkpoint: it opens and works, or one error of our own."""

import copy
import json
import shutil
from itertools import count

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minigpt5 import MiniGPT5Pipeline, MiniGPT5Processor
from minigpt5.training.checkpoints import CheckpointError, read_checkpoint, save_checkpoint
from minigpt5.vokens.adapter_folder import save_adapter
from minigpt5.vokens.adapters import LoraSettings, is_adapted, train_adapter

# A reply that runs through every part.
REPLY = {"image_mode": "always", "max_images": 1, "max_new_tokens": 2, "num_inference_steps": 1, "output_type": "np"}
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 100)
    | st.sampled_from((2**31, -(2**63), 10**30, 1e300, float("nan"), "", "fp16", "../..", "é"))
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture
def copied(tmp_path):
    """Copies a folder anew each time, and takes the copy before it away."""
    numbers = count()

    def copy_of(folder):
        number = next(numbers)
        shutil.rmtree(tmp_path / str(number - 1), ignore_errors=True)
        return shutil.copytree(folder, tmp_path / str(number))

    return copy_of


@pytest.fixture(scope="session")
def adapter_folders(small_folder, tmp_path_factory):
    """An adapter with LoRA and one with a prefix, of `small_folder`."""
    folders = []
    for name, options in (("lora", {"lora": LoraSettings(rank=2)}), ("prefix", {"prefix_length": 3})):
        pipe = MiniGPT5Pipeline.from_pretrained(small_folder)
        train_adapter(pipe, **options)
        folders.append(tmp_path_factory.mktemp("adapters") / name)
        save_adapter(pipe, folders[-1], "small")
    return folders


def spoil(folder, data):
    """Do something to a file of a folder, or to two."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "README.md")
    spoilt = data.draw(
        st.lists(st.sampled_from([str(path.relative_to(folder)) for path in files]), min_size=1, max_size=2)
    )
    for name in spoilt:
        path = folder / name
        if not path.is_file():
            continue
        kinds = ["flip", "cut", "bytes", "remove", "folder"] + ["json"] * 4 * (path.suffix == ".json")
        kind = data.draw(st.sampled_from(kinds))
        content = path.read_bytes()
        if kind == "flip" and content:
            # Headers stand in front.
            most = data.draw(st.sampled_from((20, 400, len(content))))
            content = bytearray(content)
            for place, value in data.draw(st.lists(st.tuples(st.integers(0, most), st.integers(0, 255)), max_size=4)):
                content[place % len(content)] = value
            path.write_bytes(content)
        elif kind == "cut":
            path.write_bytes(content[: data.draw(st.integers(0, max(0, len(content) - 1)))])
        elif kind == "bytes":
            path.write_bytes(data.draw(st.binary(max_size=60) | JUNK.map(lambda value: json.dumps(value).encode())))
        elif kind == "json":
            put_into_json(path, data)
        else:
            path.unlink()
            if kind == "folder":
                path.mkdir()


def put_into_json(path, data):
    """Another value in any place, or no value."""
    try:
        whole = {"root": json.loads(path.read_text())}
    except ValueError:
        return
    at, key = whole, "root"
    while isinstance(at[key], (dict, list)) and at[key] and (at is whole or data.draw(st.integers(0, 2))):
        at = at[key]
        key = data.draw(st.sampled_from(sorted(at) if isinstance(at, dict) else list(range(min(len(at), 30)))))
    if isinstance(at, dict) and data.draw(st.integers(0, 3)) == 0:
        del at[key]
    else:
        at[key] = data.draw(JUNK)
    path.write_text(json.dumps(whole.get("root")))


def works(pipe):
    """A reply that is one."""
    reply = pipe("a fox", **REPLY)
    assert isinstance(reply.text[0], str)
    assert all(torch.from_numpy(picture).isfinite().all() for picture in reply.images[0])


@given(data=st.data())
def test_any_files_of_a_model(small_folder, copied, clear_errors, data):
    folder = copied(small_folder)
    spoil(folder, data)
    with clear_errors(ValueError, TypeError, OSError):
        pipe = MiniGPT5Pipeline.from_pretrained(folder)
        pipe.set_progress_bar_config(disable=True)
        works(pipe)


@given(data=st.data())
def test_any_files_of_a_processor(small_folder, copied, clear_errors, data):
    folder = copied(small_folder / "processor")
    spoil(folder, data)
    with clear_errors(ValueError, TypeError, OSError):
        processor = MiniGPT5Processor.from_pretrained(folder)
        processor("a fox")


@given(data=st.data(), which=st.integers(0, 1))
def test_any_files_of_an_adapter(small_pipe, adapter_folders, copied, clear_errors, data, which):
    folder = copied(adapter_folders[which])
    spoil(folder, data)
    pipe = MiniGPT5Pipeline.from_pipe(small_pipe, comprehension=copy.deepcopy(small_pipe.comprehension))
    pipe.set_progress_bar_config(disable=True)
    before = {name: value.clone() for name, value in pipe.comprehension.state_dict().items()}
    mapper = pipe.mapper
    with clear_errors(ValueError, OSError) as refused:
        pipe.load_adapter(folder)
    if refused:
        assert not is_adapted(pipe.comprehension) and pipe.mapper is mapper
        after = pipe.comprehension.state_dict()
        assert all(torch.equal(after[name], before[name]) for name in before)
    works(pipe)


@given(data=st.data(), content=st.none() | st.binary(max_size=300))
def test_any_bytes_in_a_checkpoint(tmp_path, clear_errors, data, content):
    state = {
        "parameters": {"a": torch.randn(20, 3)},
        "optimizer": {"state": {0: torch.ones(2)}},
        "ema": None,
        "scaler": None,
    }
    state |= {"counters": {"step": 1}, "settings": {"seed": 3}, "frozen": {}, "rows": {}}
    save_checkpoint(tmp_path, 1, state, keep=1)
    path = tmp_path / "checkpoint-00000001.pt"
    whole = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=3)):
        whole[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole[: data.draw(st.integers(len(whole) // 2, len(whole)))] if content is None else content)
    with clear_errors(CheckpointError) as refused:
        read = read_checkpoint(path)
    if not refused:
        # What the checksums leave out holds nothing.
        assert torch.equal(read["parameters"]["a"], state["parameters"]["a"]) and read["counters"] == {"step": 1}
