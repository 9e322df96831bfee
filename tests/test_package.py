"""What importing the package does, and what it leaves alone."""

import subprocess
import sys

import pytest

import minigpt5


def test_importing_alone_loads_neither_torch_nor_diffusers():
    code = "import sys, minigpt5; print({'torch', 'diffusers', 'transformers'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


@pytest.mark.parametrize("name", minigpt5.__all__)
def test_every_public_name_is_there(name):
    assert getattr(minigpt5, name) is not None and name in dir(minigpt5)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Unknown'"):
        minigpt5.Unknown  # noqa: B018


def test_diffusers_knows_the_package_s_classes():
    """LOADABLE_CLASSES is semi-private: this says when diffusers moves it."""
    from diffusers.pipelines import pipeline_loading_utils

    import minigpt5.pipeline  # noqa: F401

    for name in ("VokenMapper", "MiniGPT5Processor"):
        assert pipeline_loading_utils.LOADABLE_CLASSES["minigpt5"][name] == ["save_pretrained", "from_pretrained"]
        assert name in pipeline_loading_utils.ALL_IMPORTABLE_CLASSES
