"""What importing the package does, and what it leaves alone."""

import gc
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import minigpt5
from minigpt5.utils.imports import collector_paused
from minigpt5.utils.registry import lend

# What the pipeline does without: other rooms, and libraries that take long to import and that only these rooms use.
NOT_NEEDED = {
    f"minigpt5.{room}" for room in ("data", "evaluation", "joining", "metrics", "service", "training", "studio")
}
NOT_NEEDED |= {"datasets", "pyarrow", "pandas", "torchmetrics", "clip", "nltk", "sklearn", "sentence_transformers"}
NOT_NEEDED |= {"fastapi", "uvicorn", "gradio", "matplotlib", "tensorboard", "ray", "openai"}


def test_importing_alone_loads_neither_torch_nor_diffusers():
    code = "import sys, minigpt5; print({'torch', 'diffusers', 'transformers', 'numpy', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_no_garbage_is_looked_for_while_libraries_are_imported(monkeypatch):
    looked = []

    def import_module(name):
        looked.append(gc.isenabled())
        return SimpleNamespace(VokenMapper=name)

    monkeypatch.setattr(minigpt5, "import_module", import_module)
    assert minigpt5.VokenMapper == "minigpt5.vokens.mapper"
    assert looked == [False] and gc.isenabled()
    with pytest.raises(ImportError), collector_paused():
        raise ImportError
    assert gc.isenabled()
    # Who has turned it off wants it so.
    gc.disable()
    try:
        with collector_paused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


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


@pytest.mark.parametrize(
    "imports",
    [
        "minigpt5, diffusers, transformers",
        pytest.param("diffusers, transformers, minigpt5", marks=pytest.mark.slow),
    ],
)
def test_diffusers_and_transformers_find_our_classes_whichever_is_imported_first(imports):
    code = (
        f"import sys, {imports}, minigpt5.weights\n"
        "folder = minigpt5.weights.shipped_model('storyworld-mini')\n"
        "print({'minigpt5.pipeline', 'minigpt5.readers.processor'} & set(sys.modules))\n"
        "processor = transformers.AutoProcessor.from_pretrained(folder, subfolder='processor')\n"
        "print(type(processor).__name__, type(processor.image_processor).__name__)\n"
        "print('minigpt5.pipeline' in sys.modules, diffusers.MiniGPT5Pipeline.__module__)\n"
        f"print({NOT_NEEDED} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\nMiniGPT5Processor BlipImageProcessorPil\nFalse minigpt5.pipeline\nset()\n"


def test_diffusers_keeps_its_own_names():
    import diffusers

    assert diffusers.DDIMScheduler.__name__ == "DDIMScheduler"
    with pytest.raises(AttributeError, match="MiniGPT6Pipeline"):
        getattr(diffusers, "MiniGPT6Pipeline")  # noqa: B009


def test_names_are_lent_to_a_module_that_looks_up_some_itself(monkeypatch):
    """As diffusers does where `DIFFUSERS_SLOW_IMPORT` is set, or might one day."""
    module = ModuleType("diffusers")
    module.__getattr__ = {"own": 1}.__getitem__
    monkeypatch.setitem(sys.modules, "diffusers", module)
    lend("diffusers", "ours", lambda: 2)
    assert (module.own, module.ours) == (1, 2)


def test_modalities_are_told_as_any_to_any_models_tell_them():
    for kind in (minigpt5.MiniGPT5Pipeline, minigpt5.MiniGPT4ForConditionalGeneration):
        assert set(kind.input_modalities) == set(kind.output_modalities) == {"image", "text"}
