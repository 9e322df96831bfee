"""Settings from a file and the command line."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from minigpt5.utils.programs import read_config
from minigpt5.utils.settings import Settings, build_settings, plain, setting


@dataclass
class Weights(Settings):
    """Weights of losses."""

    text: float = setting(0.01, least=0, help="of the text, 100 % of it")
    gamma: float | None = setting(5.0, above=0, help="of Min-SNR")


@dataclass(kw_only=True)
class Loop(Settings):
    """The training loop."""

    steps: int = setting(10, least=1, help="optimizer steps")
    precision: str = setting("no", choices=("no", "bf16"), help="of the forward pass")
    average: float | None = setting(None, above=0, below=1, help="decay")


@dataclass(kw_only=True)
class Stage(Loop):
    """This stage."""

    model: Path = setting(help="folder to start from")
    mix: dict[str, int] = setting(factory=dict, least=1, help="conversations by task")
    names: tuple[str, ...] = setting(("q", "v"), help="of layers")
    fuse: bool = setting(False, help="fold in")
    weights: Weights = setting(factory=Weights)
    extra: Weights | None = setting(None, help="more of them")
    mark: str | None = setting(None, help="said before")


@dataclass(kw_only=True)
class Files(Settings):
    """Put files somewhere."""

    kind: str = setting(choices=("cc3m", "vist"), positional=True, help="the data set")
    sources: tuple[Path, ...] = setting(positional=True, help="folders")
    workers: int = setting(2, least=1, help="processes")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("model: here\nsteps: 3\nweights: {text: 2.0e-1}\nmix: {draw: 2}\n")
    return path


def read(*words, schema=Stage):
    return read_config(schema, "What it does.", [str(word) for word in words])


def test_the_command_line_wins_over_the_file(file):
    settings = read("--config", file, "--steps", "7", "--weights.gamma", "null")
    assert settings == Stage(model=Path("here"), steps=7, mix={"draw": 2}, weights=Weights(0.2, None))


def test_a_type_says_what_a_word_means(file):
    given = ["--model", "2024-01-01", "--weights.text", "1e-4", "--mix", "{talk: 3}", "--steps=5", "--mark", "[DST]"]
    expected = Stage(model=Path("2024-01-01"), steps=5, mix={"talk": 3}, weights=Weights(1e-4), mark="[DST]")
    assert read(*given) == expected
    file.write_text("model: 007\nprecision: no\nfuse: Yes\nweights: {text: 3, gamma: ~}\nnames: [on, 1]\nmark: null\n")
    expected = Stage(model=Path("007"), fuse=True, weights=Weights(3.0, None), names=("on", "1"))
    assert read("--config", file) == expected
    assert isinstance(read("--config", file).weights.text, float)


def test_yaml_may_merge_and_name_types(file):
    file.write_text("x: &x {text: 2}\n".replace("x:", "weights:") + "extra: {<<: *x, gamma: 3}\nmodel: !!str 3\n")
    settings = read("--config", file)
    assert settings.extra == Weights(2.0, 3.0) and settings.model == Path("3")


def test_lists_come_as_words_or_as_a_list():
    for words in (["[a, b]"], ["a", "b"]):
        assert read("--model", "m", "--names", *words).names == ("a", "b")


def test_a_list_too_can_be_left_out(file):
    @dataclass(kw_only=True)
    class Named(Settings):
        names: tuple[str, ...] | None = setting(("q",))

    assert read("--names", "null", schema=Named).names is None
    assert read("--names", "a", "null", schema=Named).names == ("a", "null")
    file.write_text("names: null\n")
    assert read("--config", file, schema=Named).names is None


def test_a_path_may_begin_at_home(file, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert read("--model=~/m").model == Path("/home/me/m") and read("--model=a/~").model == Path("a/~")
    file.write_text("model: ~/m\n")
    assert read("--config", file).model == Path("/home/me/m")


def test_a_truth_stands_alone_or_is_said():
    for words, value in ((["--fuse"], True), (["--fuse", "true"], True), (["--fuse=false"], False), ([], False)):
        assert read("--model", "m", *words).fuse is value


def test_hyphens_mean_underscores():
    @dataclass(kw_only=True)
    class Long(Settings):
        batch_size: int = setting()
        out_name: str = setting("")

    assert read("--batch-size", "4", schema=Long).batch_size == 4
    assert read("--batch-size=4", "--out-name", "a-b", schema=Long).out_name == "a-b"


def test_a_group_can_be_set_or_left_out(file):
    assert read("--model", "m").extra is None
    assert read("--model", "m", "--extra.text", "3").extra == Weights(3.0)
    assert read("--model", "m", "--extra", "{text: 3}").extra == Weights(3.0)
    file.write_text("model: m\nextra: {text: 3}\n")
    assert read("--config", file, "--extra", "null").extra is None


def test_places_and_commands():
    settings = read("vist", "a", "b", "--workers", "3", schema=Files)
    assert settings == Files(kind="vist", sources=(Path("a"), Path("b")), workers=3)
    both = {"put": Files, "train": Loop}
    assert read("put", "cc3m", "a", schema=both) == Files(kind="cc3m", sources=(Path("a"),))
    assert read("train", "--steps", "3", schema=both) == Loop(steps=3)


BAD = {
    "steps": ["1.5", "0", "-1", "many", "", "1e3", "9" * 10, "9" * 5000, "[3]", "null", "{}"],
    "weights.text": ["much", "-1", "nan", "inf", "[]"],
    "average": ["0", "1", "-0.1"],
    "precision": ["half", "null"],
    "mix": ["3", "{story: 7, draw: -1}", "{draw: 0}", "{draw: 1.5}", "{draw: {a: 1}}", "[draw]", "{draw"],
    "fuse": ["maybe", "2"],
    "model": [""],
    "extra": ["3", "{txt: 1}", "{txt"],
    "extra.text": ["x"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in BAD.items() for value in values])
def test_a_bad_value_is_one_line_that_names_it(name, value, capsys):
    with pytest.raises(SystemExit) as stop:
        read("--model", "m", f"--{name}={value}")
    told = capsys.readouterr().err
    assert stop.value.code == 2 and told.count("\n") == 1 and len(told) < 200
    assert name.split(".")[0] in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps: 3\n", "model is not set"),
        ("model: m\nstpes: 3\n", "unknown setting stpes"),
        ("model: m\nweights: {txt: 3}\n", "unknown setting weights.txt; there are text, gamma"),
        ("model: m\nweights: 3\n", "weights: '3' is not a mapping"),
        ("model: m\nweights: {text: -3}\n", "weights.text is -3.0, must be at least 0"),
        ("model: m\n3: 4\ntrue: x\n", "unknown setting 3"),
        ("model: m\nmix: {3: x}\n", "mix is {'3': 'x'}, expected a mapping of names to whole numbers"),
        ("model: m\nmix: {3: -1}\n", "mix.3 is -1, must be at least 1"),
        ("model: m\n[1, 2]: 4\n", "not YAML"),
        ("- model\n", "the settings: ['model'] is not a mapping"),
        ("model: [\n", "not YAML"),
        ("model: m\nsteps: 3\nsteps: 4\n", "not YAML in line 3: it says steps twice"),
        ("model: m\nmix: {draw: 3, draw: 4}\n", "not YAML in line 2: it says draw twice"),
        ("model: \x00\n", "not YAML"),
        ("model: !!timestamp never\n", "not YAML"),
        ("model: !!python/object:os.system m\n", "not YAML"),
        ("model: m\nsteps: " + "[" * 2000 + "\n", "nested too deeply"),
        ("model: m\nsteps: " + "{a: " * 300 + "1" + "}" * 300 + "\n", "steps is"),
        ("a: &a [x, x]\nmodel: m\nsteps: *a\n", "unknown setting a"),
        ("model: m\nsteps: &a [*a, *a]\n", "steps is"),
    ],
)
def test_a_bad_file_is_one_line_that_names_it(file, text, told, capsys):
    file.write_text(text)
    with pytest.raises(SystemExit) as stop:
        read("--config", file)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and told in error and str(file) in error
    assert error.count("\n") == 1 and len(error) < 400


def test_aliases_that_multiply_do_not_fill_the_memory(file, capsys):
    lines = ["mix: {a: &a0 [x, x, x, x, x, x, x, x, x]}", "model: m", "steps:"]
    lines += [f"  - &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(12)]
    file.write_text("\n".join(lines))
    with pytest.raises(SystemExit):
        read("--config", file)
    assert len(capsys.readouterr().err) < 400


def test_what_is_not_text_and_what_is_not_there_are_named(file, tmp_path, capsys):
    file.write_bytes(b"model: \xff\xfe\n")
    for path in (file, tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SystemExit) as stop:
            read("--config", path)
        error = capsys.readouterr().err
        assert stop.value.code == 2 and str(path) in error and error.count("\n") == 1


def test_a_bad_word_of_the_command_line_does_not_blame_the_file(file, capsys):
    with pytest.raises(SystemExit):
        read("--config", file, "--steps", "-1")
    assert capsys.readouterr().err.split("error: ")[1] == "steps is -1, must be at least 1\n"
    with pytest.raises(SystemExit):
        read("--config", file, "--nosuch", "3")
    assert "unrecognized arguments: --nosuch 3" in capsys.readouterr().err


def test_ranges_hold_for_settings_made_in_python():
    with pytest.raises(ValueError, match="steps is -1, must be at least 1"):
        Loop(steps=-1)
    with pytest.raises(ValueError, match="precision is 'half', must be one of no, bf16"):
        Loop(precision="half")
    with pytest.raises(ValueError, match="steps is True, expected a whole number"):
        Loop(steps=True)
    assert Stage(model="m", weights=Weights(1)).weights.text == 1.0


def test_help_tells_each_setting_its_range_and_its_default(capsys):
    with pytest.raises(SystemExit) as stop:
        read("--help")
    told = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0 and "What it does." in told
    for text in (
        "This stage: --model PATH folder to start from (required)",
        "--mix {NAME: INT, …} conversations by task; at least 1 (default: {})",
        "--fuse [true|false] fold in (default: false)",
        "--extra null more of them (default: null)",
        "Weights of losses: --weights.text FLOAT of the text, 100 % of it; at least 0 (default: 0.01)",
        "--weights.gamma FLOAT|null of Min-SNR; above 0 (default: 5.0)",
        "The training loop: --steps INT optimizer steps; at least 1 (default: 10)",
        "--precision {no,bf16} of the forward pass (default: no)",
        "--average FLOAT|null decay; above 0 and below 1 (default: null)",
    ):
        assert text in told, text
    with pytest.raises(SystemExit):
        read("--help", schema=Files)
    assert "{cc3m,vist} SOURCES ... [--config FILE]" in capsys.readouterr().out


def test_settings_go_to_plain_values_and_back():
    settings = Stage(model=Path("m"), extra=Weights(1.0), names=("a",), mix={"b": 2})
    values = plain(settings)
    assert values["model"] == "m" and values["extra"] == {"text": 1.0, "gamma": 5.0}
    assert build_settings(Stage, values) == settings
    assert build_settings(Stage, yaml.safe_load(yaml.safe_dump(values))) == settings


@dataclass(kw_only=True)
class Second(Settings):
    """The second stage."""

    weights: Weights = setting(factory=lambda: Weights(text=0.5))


def test_settings_within_keep_what_the_outer_ones_say(capsys):
    assert read("--weights.gamma", "3", schema=Second).weights == Weights(0.5, 3.0)
    with pytest.raises(SystemExit):
        read("--help", schema=Second)
    assert "(default: 0.5)" in capsys.readouterr().out


def test_numbers_too_are_one_of_some():
    @dataclass(kw_only=True)
    class Scaled(Settings):
        scale: int | None = setting(8, choices=(1, 2, 8))

    assert build_settings(Scaled, {"scale": "2"}).scale == 2 and Scaled(scale=None).scale is None
    with pytest.raises(ValueError, match="scale is 3, must be one of 1, 2, 8"):
        Scaled(scale=3)
