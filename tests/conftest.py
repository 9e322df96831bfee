"""A tiny random pipeline, shared by all tests: the miniature's own parts, never trained."""

from __future__ import annotations

import os
import random
import runpy
import shutil
import sys
import threading
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Threads that spin while they wait take the cores from the other processes.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.hooks.group_offloading import ModuleGroup
from recordings import of_stage, sources

from minigpt5 import MiniGPT5Pipeline, MiniGPT5Processor
from minigpt5.published.checkpoints import import_official
from minigpt5.storyworld import miniature
from minigpt5.storyworld.draw import draw
from minigpt5.storyworld.language import caption
from minigpt5.storyworld.scene import sample_scene
from minigpt5.storyworld.stories import sample_story
from minigpt5.vokens.decoding import DecodingBatch

ROOT = Path(__file__).parents[1]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file of tests is one worker's; so are all files that fork, which share what they fork off."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::", 1)[0]
            return "forked" if "from forking import" in (config.rootpath / file).read_text() else file

    return Scheduling(config, log)


@pytest.fixture(scope="session", autouse=True)
def _few_threads():
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, min(2, torch.get_num_threads() // workers)))


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Captions and stories for the tokenizer."""
    rng = random.Random(0)
    captions = [caption(sample_scene(rng), rng) for _ in range(200)]
    stories = [step.text for _ in range(40) for step in sample_story(rng).steps]
    return [*captions, *stories, "###Human: What happens next? <Img></Img> ###Assistant: Draw this: ###"]


@pytest.fixture(scope="session")
def pictures():
    """Four different pictures."""
    return [draw(sample_scene(random.Random(seed))) for seed in range(4)]


@pytest.fixture(scope="session")
def tiny_processor(texts) -> MiniGPT5Processor:
    tokenizer = miniature.build_tokenizer(texts, lowercase=False, max_length=miniature.CONTEXT_LENGTH)
    return MiniGPT5Processor(
        miniature.build_image_processor(), tokenizer, num_query_tokens=miniature.NUM_QUERY_TOKENS, n_vokens=8
    )


@pytest.fixture(scope="session")
def tiny_pipe(tiny_processor) -> MiniGPT5Pipeline:
    """A random pipeline that takes two steps a picture. Leave its parts and settings as they are."""
    torch.manual_seed(0)
    comprehension = miniature.build_comprehension(
        len(tiny_processor.tokenizer), tiny_processor.image_token_id, tiny_processor.tokenizer
    )
    comprehension.generation_config.max_new_tokens = 6
    pipe = MiniGPT5Pipeline(
        processor=tiny_processor,
        comprehension=comprehension.eval(),
        mapper=miniature.build_mapper().eval(),
        unet=miniature.build_unet().eval(),
        vae=miniature.build_vae().eval(),
        scheduler=miniature.build_scheduler(),
        guidance_scale=2.5,
        num_inference_steps=2,
    )
    pipe.set_progress_bar_config(disable=True)
    _SHARED[pipe] = _state(pipe)
    return pipe


@pytest.fixture(scope="module", autouse=True)
def _what_is_shared_stays():
    """A file of tests that changed the parts of `tiny_pipe` fails itself, not one that comes after it."""
    yield
    for pipe, state in _SHARED.items():
        now = _state(pipe)
        _SHARED[pipe] = now
        assert [name for name in state if not _same(state[name], now.get(name))] == []
        assert state.keys() == now.keys()


def _state(pipe):
    """All that a pipeline's reply depends on but its random numbers."""
    settings = {"pipeline": pipe.config, "scheduler": pipe.scheduler.config}
    state = {f"{part} {name}": value for part, all in settings.items() for name, value in all.items() if name[0] != "_"}
    state |= {"alphas": pipe.scheduler.alphas_cumprod.clone(), "tokens": len(pipe.processor.tokenizer)}
    state["pictures"] = pipe.processor.image_processor.to_dict()
    for name, part in pipe.components.items():
        state[name] = type(part)
        if isinstance(part, torch.nn.Module):
            tensors = (*part.named_parameters(prefix=name), *part.named_buffers(prefix=name))
            state |= {path: tensor.detach().clone() for path, tensor in tensors}
            for path, module in part.named_modules(prefix=name):
                plain = {name: value for name, value in vars(module).items() if isinstance(value, bool | int | float)}
                hooks = len(module._forward_pre_hooks), len(module._forward_hooks)
                state[f"{path} module"] = type(module), "forward" in vars(module), hooks, plain
    names = ("num_query_tokens", "n_vokens", "system", "chat_template", "voken_ids", "image_token_id")
    return state | {name: getattr(pipe.processor, name) for name in names}


def _same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return one == other


_SHARED: dict[MiniGPT5Pipeline, dict] = {}


@pytest.fixture(scope="session")
def tiny_folder(tiny_pipe, tmp_path_factory):
    """`tiny_pipe` as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    """A whole pipeline folder of 2 MB, text encoder and all, imported from the recordings' tiny weights."""
    folder = tmp_path_factory.mktemp("models") / "small"
    import_official(folder, **sources(of_stage(1)))
    return folder


@pytest.fixture
def pipe(tiny_pipe) -> MiniGPT5Pipeline:
    """A pipeline of its own around the parts of `tiny_pipe`, to be changed at will as long as its weights are not."""
    own = MiniGPT5Pipeline.from_pipe(tiny_pipe)
    own.scheduler = DDIMScheduler.from_config(tiny_pipe.scheduler.config)
    own.set_progress_bar_config(disable=True)
    return own


@pytest.fixture
def script(monkeypatch, tiny_processor):
    """Write what each row says, then it ends.

    A row is a list of ids, of words ("+###" goes on without a space, a token a character) and of `None`, which leaves a
    choice to the model.
    """
    from minigpt5.vokens.decoding import InterleavedDecoder

    tokenizer = tiny_processor.tokenizer
    genuine = InterleavedDecoder._choose

    def ids(row):
        spoken = []
        for part in row:
            if not isinstance(part, str):
                spoken.append(part)
            elif part.startswith("+"):
                spoken += tokenizer.convert_tokens_to_ids(list(part[1:]))
            else:
                spoken += tokenizer.encode(part, add_special_tokens=False)
        return spoken

    def write(*rows):
        lines = [ids(row) for row in rows]

        def forced(decoder, logits, rows):
            for scores, line, row in zip(logits, lines, rows, strict=True):
                token = line[row.choices] if row.choices < len(line) else tokenizer.eos_token_id
                if token is not None:
                    scores[token] += 10_000
            return genuine(decoder, logits, rows)

        monkeypatch.setattr(InterleavedDecoder, "_choose", forced)
        return lines

    return write


@pytest.fixture
def count_calls(monkeypatch):
    """How often modules are called: `count_calls(module)` gives a list that grows by the inputs of each forward."""
    handles = []

    def count(module):
        calls = []
        note = lambda _, args, kwargs, output: calls.append((args, kwargs))  # noqa: E731
        handles.append(module.register_forward_hook(note, with_kwargs=True))
        return calls

    yield count
    for handle in handles:
        handle.remove()


@pytest.fixture
def weights_leave(monkeypatch):
    """Group offload that needs no accelerator: weights become NaN where they would leave the device.

    Gives a list that grows by the groups that come back.
    """
    came, away = [], {}

    def tensors_of(group):
        tensors = [tensor for module in group.modules for tensor in (*module.parameters(), *module.buffers())]
        return dict.fromkeys([*tensors, *group.parameters, *group.buffers])

    def take_away(group):
        for tensor in tensors_of(group):
            if tensor not in away:
                away[tensor], nothing = tensor.data, torch.nan if tensor.is_floating_point() else -1
                tensor.data = torch.full_like(tensor, nothing)

    def bring(group):
        came.append(group)
        for tensor in tensors_of(group):
            tensor.data = away.pop(tensor, tensor.data)

    monkeypatch.setattr(ModuleGroup, "_offload_to_memory", take_away)
    monkeypatch.setattr(ModuleGroup, "_onload_from_memory", bring)
    return came


@pytest.fixture
def run_program(monkeypatch):
    """`run_program("training/align_vokens", "--steps", 3)` runs the program as a user does, within this process."""

    def run(name: str, *arguments: object) -> None:
        program = str(ROOT / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [program, *map(str, arguments)])
        runpy.run_path(program, run_name="__main__")

    return run


@pytest.fixture
def refused(run_program, capsys):
    """Run a program that ends with one line on stderr and exit code 2; gives the line."""

    def run(name: str, *arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            run_program(name, *arguments)
        told = capsys.readouterr().err
        assert stop.value.code == 2 and told.count("\n") == 1, told
        assert told.startswith(f"{Path(name).name}.py: error: ")
        return told.split("error: ", 1)[1]

    return run


@pytest.fixture
def held(monkeypatch):
    """Steps of decoding wait for `held.set()`."""
    gate, genuine = threading.Event(), DecodingBatch.step

    def step(batch):
        assert gate.wait(60)
        return genuine(batch)

    monkeypatch.setattr(DecodingBatch, "step", step)
    yield gate
    gate.set()


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium, without a window."""
    sync_api, chromium = pytest.importorskip("playwright.sync_api"), shutil.which("chromium")
    if chromium is None:
        pytest.skip("there is no chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield browser
        browser.close()
