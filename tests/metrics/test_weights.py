import subprocess
import sys

import pytest

import minigpt5.metrics
from minigpt5.metrics import MissingWeights
from minigpt5.metrics.weights import find_file, from_hub, require


def test_importing_metrics_is_quick_and_every_name_is_there():
    program = "import minigpt5.metrics, sys; print([m for m in ('torch', 'torchmetrics', 'clip') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout.strip() == "[]"
    for name in minigpt5.metrics.__all__:
        assert getattr(minigpt5.metrics, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        minigpt5.metrics.nothing  # noqa: B018


def test_a_missing_library_is_told_with_its_extra():
    with pytest.raises(ModuleNotFoundError, match=r"needs no_such_library.*minigpt5\[eval\]"):
        require("no_such_library.part")
    assert require("json.decoder").__name__ == "json.decoder"


def test_a_named_file_comes_before_the_cached_one(tmp_path):
    named, cached = tmp_path / "named", tmp_path / "cached"
    for file in (named, cached):
        file.touch()
    assert find_file("Weights", named, cached, "there") == named
    assert find_file("Weights", None, cached, "there") == cached
    with pytest.raises(MissingWeights, match="from there"):
        find_file("Weights", tmp_path / "neither", cached, "there")


def test_a_folder_is_loaded_and_an_error_in_it_is_its_own(tmp_path):
    assert from_hub("A model", str, tmp_path) == str(tmp_path)

    def load(folder):
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        from_hub("A model", load, tmp_path)
