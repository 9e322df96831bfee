"""Lets diffusers and transformers find this package's classes, without importing any of them before it is used.

`DiffusionPipeline.from_pretrained` and `AutoProcessor.from_pretrained` look for the class that a folder names among
their library's own names. So each library is given one more, when it is imported or if it was: what it does not know,
it looks up here (PEP 562).
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def lend(library: str, name: str, find: Callable[[], Any], after: str | None = None) -> None:
    """Make `library.<name>` what `find` returns.

    Args:
        after: the module of the library with whose import its own names are settled.
    """
    settled = after or library

    def add() -> None:
        module = sys.modules[library]
        own = vars(module).get("__getattr__")

        def look_up(attribute: str) -> Any:
            if attribute == name:
                return find()
            if own is not None:
                return own(attribute)
            raise AttributeError(f"module {library!r} has no attribute {attribute!r}")

        vars(module)["__getattr__"] = look_up

    if settled in sys.modules:
        add()
    else:
        sys.meta_path.insert(0, _WhenImported(settled, add))


class _WhenImported:
    """Finds a module as everybody does, and has something done when it is executed."""

    def __init__(self, name: str, act: Callable[[], None]):
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
                self.act()

            spec.loader.exec_module = exec_module
        return spec
