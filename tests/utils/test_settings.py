"""Settings from a file and the command line."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from minigpt5.utils.settings import build_settings, plain, read_config


@dataclass
class Weights:
    """Weights of losses.

    Args:
        text: of the text,
            100 % of it.
        gamma: of Min-SNR.
    """

    text: float = 0.01
    gamma: float | None = 5.0


@dataclass(kw_only=True)
class Settings:
    """Settings of a program.

    Args:
        model: folder to start from.
        steps, warmup: in optimizer steps.
    """

    model: Path
    steps: int = 10
    warmup: int | None = None
    mix: dict = field(default_factory=dict)
    weights: Weights = field(default_factory=Weights)
    extra: Weights | None = None

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError("steps must be positive")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text("model: here\nsteps: 3\nweights: {text: 2.0e-1}\nmix: {draw: 2}\n")
    return path


def test_the_command_line_wins_over_the_file(file):
    settings = read_config(Settings, "x", ["--config", str(file), "--steps", "7", "--weights.gamma", "null"])
    assert settings == Settings(model=Path("here"), steps=7, mix={"draw": 2}, weights=Weights(0.2, None))


def test_numbers_paths_and_mappings_are_read_from_words(file):
    words = ["--model", "a/b", "--weights.text", "1e-4", "--mix", "{talk: 3}", "--warmup=5"]
    settings = read_config(Settings, "x", words)
    assert settings == Settings(model=Path("a/b"), warmup=5, mix={"talk": 3}, weights=Weights(1e-4))


def test_hyphens_mean_underscores(file):
    @dataclass(kw_only=True)
    class Long:
        batch_size: int

    assert read_config(Long, "x", ["--batch-size", "4"]).batch_size == 4
    assert read_config(Long, "x", ["--batch-size=4"]).batch_size == 4


def test_a_group_can_be_set_or_left_out(file):
    assert read_config(Settings, "x", ["--model", "m"]).extra is None
    assert read_config(Settings, "x", ["--model", "m", "--extra.text", "3"]).extra == Weights(3.0)
    file.write_text("model: m\nextra: {text: 3}\n")
    assert read_config(Settings, "x", ["--config", str(file), "--extra", "null"]).extra is None


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--steps", "1.5"], "steps is 1.5, expected int"),
        (["--steps", "0"], "steps must be positive"),
        (["--weights.text", "much"], "weights.text is 'much', expected float"),
        (["--mix", "3"], "mix is 3, expected dict"),
        (["--nosuch", "3"], "unrecognized arguments: --nosuch"),
    ],
)
def test_a_bad_value_is_one_line_that_names_it(words, told, capsys):
    with pytest.raises(SystemExit) as stop:
        read_config(Settings, "x", ["--model", "m", *words])
    assert stop.value.code == 2 and told in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("steps: 3\n", "model is not set"),
        ("model: m\nstpes: 3\n", "unknown setting stpes"),
        ("model: m\nweights: {txt: 3}\n", "unknown setting weights.txt; there are text, gamma"),
        ("model: m\nweights: 3\n", "weights: 3 is not a mapping"),
        ("model: [\n", "settings.yaml"),
    ],
)
def test_a_bad_file_is_named(file, text, told, capsys):
    file.write_text(text)
    with pytest.raises(SystemExit):
        read_config(Settings, "x", ["--config", str(file)])
    error = capsys.readouterr().err
    assert told in error and str(file) in error


def test_a_missing_file_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit):
        read_config(Settings, "x", ["--config", str(tmp_path / "none.yaml")])
    assert "none.yaml" in capsys.readouterr().err


def test_help_tells_what_the_docstrings_tell(capsys):
    with pytest.raises(SystemExit):
        read_config(Settings, "What it does.", ["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert "What it does." in told
    assert "--weights.text FLOAT of the text, 100 % of it (0.01)" in told
    assert "--warmup INT OR NULL in optimizer steps (null)" in told
    assert "--model PATH folder to start from (required)" in told


def test_settings_go_to_plain_values_and_back():
    settings = Settings(model=Path("m"), extra=Weights(1.0))
    values = plain(settings)
    assert values["model"] == "m" and values["extra"] == {"text": 1.0, "gamma": 5.0}
    assert build_settings(Settings, values) == settings
