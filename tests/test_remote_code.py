"""No code of a folder or repository is ever run: every loader is told so, and a folder that brings code is refused."""

import ast
import json
import shutil
from pathlib import Path

import pytest

from minigpt5 import MiniGPT5Pipeline, MiniGPT5Processor
from minigpt5.cli import main

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests/golden/A"
ROOMS = ("minigpt5", "training", "evaluation", "pipelines", "benchmarks")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
LOADERS = {"from_pretrained", "from_single_file", "load_dataset", "SentenceTransformer"}
# Ours, which tell those that they call, and peft's, which reads nothing but JSON.
SAFE = {"MiniGPT5Pipeline.from_pretrained", "MiniGPT5Processor.from_pretrained", "LoraConfig.from_pretrained"}


def careless(source):
    """Lines of a module that use a loader without telling it to run no code."""
    tree, told = ast.parse(source), set()
    careful = {"without_code(options)"} | ({"options"} if "options = without_code(kwargs)" in source else set())
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        words = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if words.get("trust_remote_code") == "False" or words.get(None) in careful:
            # Also a loader that is handed on, as `partial(load, trust_remote_code=False)`.
            told |= {id(call.func), *map(id, call.args)}
    for node in ast.walk(tree):
        name = getattr(node, "attr", getattr(node, "id", None))
        if name in LOADERS and ast.unparse(node) not in SAFE and id(node) not in told:
            yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_loader_is_told_to_run_no_code(path):
    assert list(careless(path.read_text(encoding="utf-8"))) == []


def test_careless_loaders_are_found():
    assert list(careless("A.from_pretrained(x)\nf(A.from_pretrained, x)\nA.from_pretrained(x, trust_remote_code=True)"))
    assert not list(
        careless("A.from_pretrained(x, trust_remote_code=False)\nf(A.from_pretrained, trust_remote_code=False)")
    )


@pytest.fixture
def folder(small_folder, tmp_path):
    """A pipeline's folder, each part of which brings code that would write a file."""
    folder = shutil.copytree(small_folder, tmp_path / "model")
    for part in (folder, *(path for path in folder.iterdir() if path.is_dir())):
        (part / "mine.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\nclass Mine: pass\n")
    return folder


def bring(folder, file, *path, **values):
    """Write values into a JSON file, below a path of keys."""
    content = json.loads((folder / file).read_text())
    inner = content
    for key in path:
        inner = inner[key]
    inner |= values
    (folder / file).write_text(json.dumps(content))


BRINGING = {
    "a part": ("model_index.json", (), {"unet": ["mine", "Mine"]}),
    "a pipeline": ("model_index.json", (), {"_class_name": ["mine", "Mine"]}),
    "a model": ("comprehension/config.json", (), {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}),
    "an image processor": (
        "processor/processor_config.json",
        ("image_processor",),
        {"image_processor_type": "Mine", "auto_map": {"AutoImageProcessor": "mine.Mine"}},
    ),
    "a tokenizer": (
        "tokenizer/tokenizer_config.json",
        (),
        {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}},
    ),
    "a processor's tokenizer": (
        "processor/tokenizer_config.json",
        (),
        {"tokenizer_class": "Mine", "auto_map": {"AutoTokenizer": ["mine.Mine", None]}},
    ),
}


@pytest.mark.parametrize("kind", BRINGING)
def test_code_in_a_model_s_folder_is_not_run(folder, tmp_path, monkeypatch, capsys, kind):
    file, path, values = BRINGING[kind]
    bring(folder, file, *path, **values)
    # Nobody is asked whether it may run.
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    code = main(["reply", "Hello", "--model", str(folder), "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert not (tmp_path / "it ran").exists()
    assert code == 0 or (code == 2 and len(said.splitlines()) == 1)
    assert code == 2 or kind in ("a model", "a tokenizer", "a processor's tokenizer")


def test_code_of_the_published_model_s_folders_is_not_run(tmp_path, capsys):
    llm = shutil.copytree(GOLDEN / "llm", tmp_path / "llm")
    (llm / "mine.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\nclass Mine: pass\n")
    bring(llm, "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Mine"})
    frozen = GOLDEN / "frozen"
    files = {"vit": frozen / "eva_vit.safetensors", "qformer": frozen / "blip2_qformer.safetensors"}
    files |= {"proj": frozen / "llama_proj.safetensors", "stage1": GOLDEN / "stage1.safetensors"}
    files |= {"llm": llm, "sd": GOLDEN / "sd", "vit-heads": 2, "qformer-heads": 2, "out": tmp_path / "out"}
    arguments = [text for name, value in files.items() for text in (f"--{name}", str(value))]
    assert main(["import-official", *arguments]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and "config.json is no configuration that can be read" in said
    assert not (tmp_path / "it ran").exists()


def test_who_asks_for_code_is_refused(folder):
    for kind, where in ((MiniGPT5Pipeline, folder), (MiniGPT5Processor, folder / "processor")):
        with pytest.raises(ValueError, match="never run"):
            kind.from_pretrained(where, trust_remote_code=True)
