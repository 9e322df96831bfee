"""Lets diffusers find this package's pipeline, without importing either before it is used.

`DiffusionPipeline.from_pretrained` looks for the class that a folder names among diffusers' own names. So diffusers is
given one more, when it is imported or if it was: what it does not know, it looks up here (PEP 562).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def lend_to_diffusers(name: str, find: Callable[[], Any]) -> None:
    """Make `diffusers.<name>` what `find` returns."""

    def lend(diffusers: ModuleType) -> None:
        own = vars(diffusers).get("__getattr__")

        def look_up(attribute: str) -> Any:
            if attribute == name:
                return find()
            if own is not None:
                return own(attribute)
            raise AttributeError(f"module 'diffusers' has no attribute {attribute!r}")

        diffusers.__getattr__ = look_up

    if "diffusers" in sys.modules:
        lend(sys.modules["diffusers"])
    else:
        sys.meta_path.insert(0, _WhenImported("diffusers", lend))


class _WhenImported(MetaPathFinder):
    """Finds a module as everybody does, and has something done when it is executed."""

    def __init__(self, name: str, act: Callable[[ModuleType], None]):
        self.name, self.act, self.searching = name, act, False

    def find_spec(self, fullname: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != self.name or self.searching:
            return None
        self.searching = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                # diffusers puts another object in its own place.
                self.act(sys.modules[fullname])

            spec.loader.exec_module = exec_module
        return spec
