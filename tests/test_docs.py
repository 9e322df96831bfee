"""What the documentation says can be typed: its commands, their options, its links and its tree of folders."""

import ast
import contextlib
import io
import itertools
import json
import posixpath
import re
import runpy
import shlex
import sys
from collections import ChainMap
from functools import cache
from pathlib import Path

import pytest
import yaml

import minigpt5.cli
from minigpt5.utils import programs

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "docs/**/*.ipynb", "benchmarks/*.md", "minigpt5/weights/*/README.md")
    for path in ROOT.glob(pattern)
)
FOLDERS = ("training", "evaluation", "pipelines", "benchmarks")
PROGRAMS = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))
COMMAND = re.compile(r"(python|accelerate launch|minigpt5|make) .*")


def written(path: Path) -> str:
    """What a file says; of a notebook its prose."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".ipynb":
        return text
    return "\n\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown")


def code(path: Path) -> list[str]:
    """The lines that a file shows as code; a backslash at the end of one continues it."""
    text = written(path)
    if path.suffix == ".yaml":
        return [line.removeprefix("#").strip() for line in text.splitlines()]
    if path.suffix == ".py":
        told = ast.get_docstring(ast.parse(text)) or ""
        return [line.strip() for line in told.replace("\\\n", " ").splitlines()]
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    return lines + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def commands(path: Path) -> list[list[str]]:
    """The commands that a file shows, as words; what may be left out stands in brackets."""
    lines = [line for line in code(path) if COMMAND.fullmatch(line)]
    return [shlex.split(re.sub(r"[\[\]]", " ", line), comments=True) for line in lines]


@cache
def help_of(program: str, *subcommand: str) -> str:
    """What a program says for `--help`, run in this process: its imports are there already."""
    before, printed = sys.argv, io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    sys.argv = [program, *subcommand, "--help"]
    try:
        with contextlib.redirect_stdout(printed), pytest.raises(SystemExit) as end:
            if program == "minigpt5":
                minigpt5.cli.main()
            else:
                runpy.run_path(str(ROOT / program), run_name="__main__")
    finally:
        sys.argv = before
    printed.seek(0)
    told = printed.read()
    assert end.value.code in (0, None), told
    return told


def options_of(program: str, words: list[str]) -> set[str]:
    """The options of a program, and of the subcommands that a command names."""
    told = latest = help_of(program)
    for number, word in enumerate(words, 1):
        # argparse lists subcommands in braces, or, where they are given another name, below it.
        listed = re.findall(r"\{([\w,-]+)\}", latest.partition("options:")[0])
        if word not in {*",".join(listed).split(","), *re.findall(r"^    ([a-z-]+)(?: |$)", latest, re.MULTILINE)}:
            break
        latest = help_of(program, *words[:number])
        told += latest
    return set(re.findall(r"(?<![\w-])--?[\w.-]*\w", told))


def given_options(words: list[str]) -> list[str]:
    """The options among words; with dashes where the program's settings have underscores they are the same."""
    return [word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)]


def known(option: str, options: set[str]) -> bool:
    return option in options or option.replace("-", "_").replace("__", "--", 1) in options


@pytest.mark.parametrize("path", [*PAGES, *PROGRAMS, *CONFIGS], ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_can_be_typed(path):
    targets = set(re.findall(r"^([a-z-]+(?: [a-z-]+)*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    targets = {target for names in targets for target in names.split()}
    for words in commands(path):
        if words[0] == "make":
            assert [word for word in words[1:2] if re.fullmatch(r"[a-z-]+", word) and word not in targets] == []
            continue
        programs = [word for word in words if word.endswith(".py")]
        program = "minigpt5" if words[0] == "minigpt5" else programs[0] if programs else None
        if program is None:
            continue
        assert program == "minigpt5" or (ROOT / program).is_file(), words
        rest = words[words.index(program) + 1 :]
        options = options_of(program, rest)
        assert [option for option in given_options(rest) if not known(option, options)] == [], words
        for name, file in itertools.pairwise(rest):
            assert name != "--config" or file == "…" or (ROOT / file).is_file(), words


@pytest.mark.parametrize("path", [*PAGES, *PROGRAMS, *CONFIGS], ids=lambda path: str(path.relative_to(ROOT)))
def test_the_settings_that_commands_give_are_taken(path, monkeypatch):
    """Those of YAML files and options together; what else a command needs is not looked at."""
    monkeypatch.chdir(ROOT)
    read = programs.read_config
    monkeypatch.setattr(programs, "run_program", lambda main, schema, told, **options: read(schema, told))
    # Models that earlier commands would have made.
    for home in ("weights", "loading", "evaluation.speaker"):
        monkeypatch.setattr(f"minigpt5.{home}.check_model", lambda name: None)
    for words in commands(path):
        places = [place for place, word in enumerate(words) if word.endswith(".py")]
        # Some show a part of a command only.
        if words[0] in ("python", "accelerate") and places and "…" not in words and len(words) > places[0] + 1:
            monkeypatch.setattr(sys, "argv", words[places[0] :])
            runpy.run_path(words[places[0]], run_name="__main__")


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_options_that_are_spoken_of_are_some_program_s(page):
    own = [options_of("minigpt5", [name]) for name in ("story", "reply", "import-official")]
    own += [options_of(str(program.relative_to(ROOT)), []) for program in PROGRAMS]
    spoken = [line.split()[0] for line in code(page) if line.startswith("--")]
    assert [option for option in spoken if not known(option, set().union(*own))] == []


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_program_has_help_and_shows_how_to_start_it(program):
    name = str(program.relative_to(ROOT))
    assert "usage:" in help_of(name)
    assert any(name in words for words in commands(program))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_configuration_begins_with_the_command_that_takes_it(config):
    first = " ".join(config.read_text(encoding="utf-8").splitlines()[:2])
    assert str(config.relative_to(ROOT)) in first and ".py " in first


def links(page: Path) -> list[str]:
    """The links of a page that lead to files."""
    found = re.findall(r"\]\(([^)#\s]+)[^)]*\)", written(page))
    return [link for link in found if "://" not in link and not link.startswith("mailto:")]


def elsewhere() -> dict[str, str]:
    """Files of the site that lie outside `docs/`: where they are on the site, and where in the repository."""
    hook = ast.parse((ROOT / "docs/pages.py").read_text(encoding="utf-8"))
    (told,) = [ast.literal_eval(node.value) for node in hook.body if isinstance(node, ast.Assign)]
    return told


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in links(page):
        target = (page.parent / link).resolve()
        assert target.exists(), link
        # The site is made of docs/ alone.
        assert ROOT / "docs" not in page.parents or target.is_relative_to(ROOT / "docs"), link


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_are_there(page):
    rooms = "|".join(("minigpt5", "tests", "configs", "docs", "deploy", *FOLDERS))
    named = re.findall(rf"`((?:{rooms})/[\w/.-]+\.(?:py|md|yaml|json|ipynb))`", written(page))
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_links_of_the_site_s_pages_from_elsewhere_lead_somewhere_on_the_site():
    files = elsewhere()
    for place, path in files.items():
        for link in links(ROOT / path) if path.endswith(".md") else []:
            target = posixpath.normpath(posixpath.join(posixpath.dirname(place), link))
            assert target in files or (ROOT / "docs" / target).is_file(), (path, link)


def test_the_site_s_contents_have_every_page_once():
    """Beside the pages of `docs/` those that `docs/pages.py` finds elsewhere."""
    contents = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    parts = [entry for part in contents for entry in part.values()]
    named = [page for part in parts for page in ([part] if isinstance(part, str) else [*ChainMap(*part).values()])]
    assert [path for path in elsewhere().values() if not (ROOT / path).is_file()] == []
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in PAGES if path.is_relative_to(ROOT / "docs")]
    assert sorted(named) == sorted([*pages, *(page for page in elsewhere() if page.endswith(".md"))])


def test_the_api_reference_has_every_room_that_is_imported_from():
    """Building the site finds out the rest; that is no part of the tests."""
    pages = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs/reference").glob("*.md")}
    named = {stem: re.findall(r"^::: minigpt5\.([\w.]+)$", text, re.MULTILINE) for stem, text in pages.items()}
    rooms = {"pipeline", "readers", "painters", "vokens", "joining", "training", "metrics", "service"}
    assert rooms - named.keys() == set()
    for stem, modules in named.items():
        assert any(module.split(".")[0] == stem for module in modules)
    for module in itertools.chain(*named.values()):
        path = ROOT / "minigpt5" / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__init__.py").is_file(), module


def test_the_readme_s_tree_has_every_folder():
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("```text\n")[2].partition("```")[0]
    told, outer = set(), ""
    for line in tree.splitlines():
        name = re.match(r"( *)(\S+)/ ", line)
        if name:
            outer = name[2] if not name[1] else outer
            told.add(f"{outer}/{name[2]}" if name[1] else name[2])
    rooms = {path.parent for path in (ROOT / "minigpt5").glob("*/__init__.py")}
    folders = {str(path.relative_to(ROOT)) for path in rooms} | {path.parts[len(ROOT.parts)] for path in PROGRAMS}
    assert folders - told == set()
    assert [name for name in told if not (ROOT / name).is_dir()] == []
