"""Imports go one way: service, evaluation → training, data → pipeline → vokens → readers, painters → utils."""

import ast
import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "minigpt5").rglob("*.py"))
}
PROGRAMS = sorted(path for folder in ("training", "evaluation", "pipelines") for path in (ROOT / folder).rglob("*.py"))

# Which rooms each room may import from, beside itself. Modules at the package's root are rooms of their own.
MAY_IMPORT = {"utils": set(), "weights": set()}
MAY_IMPORT |= {name: {"utils"} for name in ("output", "metrics", "readers", "painters")}
MAY_IMPORT["output"] |= {"readers"}
MAY_IMPORT["vokens"] = {"readers", "painters", "utils"}
# A pipeline starts chats.
MAY_IMPORT["pipeline"] = {"chat", "vokens", "readers", "painters", "utils", "weights", "output"}
for name in ("data", "published", "joining", "loading"):
    MAY_IMPORT[name] = MAY_IMPORT["pipeline"] | {"pipeline"}
# Of what is joined too there are published shapes.
MAY_IMPORT["published"] |= {"joining"}
MAY_IMPORT["training"] = MAY_IMPORT["tools"] = MAY_IMPORT["data"] | {"data"}
MAY_IMPORT["evaluation"] = MAY_IMPORT["training"] | {"training", "metrics", "loading"}
MAY_IMPORT["service"] = MAY_IMPORT["evaluation"] | {"story"}
MAY_IMPORT["studio"] = MAY_IMPORT["service"] | {"service"}
# StoryWorld is a leaf: it may use anything, and only what is about it may use it. The command line is where it is asked
# for the miniature: it warns of prompts that this does not know.
MAY_IMPORT["storyworld"] = MAY_IMPORT["training"] | {"training"}
ABOUT_STORYWORLD = (
    "minigpt5.metrics.storyworld",
    "minigpt5.evaluation.storyworld",
    "minigpt5.evaluation.claims",
    "minigpt5.commands",
)
# What a user imports or starts stands above all but StoryWorld.
ENTRANCES = {"", "__main__", "chat", "cli", "commands", "story"}
# `MiniGPT5Pipeline.join` is a shorter name for what stands above the pipeline.
UPWARDS = {("minigpt5.pipeline", "minigpt5.joining")}


def room(module: str) -> str:
    """The folder or root module of the package that a module is in; the package itself is ""."""
    return f"{module}.".split(".")[1]


def imports(path: Path) -> set[str]:
    """Modules of the package that a file imports, at any depth, also for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            inner = {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys()
            found |= inner or {node.module}
        elif isinstance(node, ast.ImportFrom):
            raise AssertionError(f"{path}:{node.lineno}: imports are absolute here")
    return {name for name in found if name.split(".")[0] == "minigpt5"}


def may_import(module: str, other: str) -> bool:
    """Whether the layers let one module import another."""
    here, there = room(module), room(other)
    # The package itself has only its version, and public names that are imported when they are first used.
    if here == there or there == "" or (module, other) in UPWARDS:
        return True
    if there == "storyworld":
        return module.startswith(ABOUT_STORYWORLD)
    return here in ENTRANCES or there in MAY_IMPORT[here]


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_one_way(module):
    assert [other for other in sorted(imports(MODULES[module])) if not may_import(module, other)] == []


def test_layers_hold_rooms_apart():
    assert not may_import("minigpt5.readers.generic", "minigpt5.painters.base")
    assert not may_import("minigpt5.painters.base", "minigpt5.readers.generic")
    assert not may_import("minigpt5.story", "minigpt5.storyworld.scene")
    assert may_import("minigpt5.evaluation.claims.rows", "minigpt5.storyworld.scene")


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_programs_import_no_other_program(program):
    """Their folders are on `sys.path` when they run, so a program must not have the name of a library either."""
    names = {path.stem for path in PROGRAMS}
    tree = ast.parse(program.read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert {name.split(".")[0] for name in imported} & names == set()
    assert importlib.util.find_spec(program.stem) is None
