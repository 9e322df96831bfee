"""Properties that hold for anything: ten examples each in `make test`, a hundred under `-m slow`.

A test here is an ordinary one with `@given`; it takes its number of examples from the profile, so it sets none. What
must not happen is an error that is not our own, and a hang.
"""

from __future__ import annotations

import signal
import traceback
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import minigpt5

HERE, PACKAGE = Path(__file__).parent, Path(minigpt5.__file__).parent
LONGEST = {"quick": 60, "thorough": 600}

_SHARED = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None, "print_blob": True}
settings.register_profile("quick", max_examples=10, derandomize=True, **_SHARED)
settings.register_profile("thorough", max_examples=100, **_SHARED)


def _profile(config) -> str:
    return "thorough" if config.getoption("markexpr") == "slow" else "quick"


def pytest_configure(config):
    settings.load_profile(_profile(config))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Under `-m slow` all of them are slow."""
    if _profile(config) == "thorough":
        for item in items:
            if HERE in item.path.parents:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _no_hang(request):
    """Ends a test that hangs."""

    def stop(*_):
        raise TimeoutError("the test hangs")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LONGEST[_profile(request.config)])
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def clear_errors():
    """A context that lets pass what works, and what minigpt5 itself refuses; anything else fails.

    Kinds of exceptions other than ValueError and TypeError may be named: `clear_errors(ValueError, OSError)`.
    """

    @contextmanager
    def check(*kinds):
        expected = kinds or (ValueError, TypeError)
        try:
            yield
        except expected as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            if PACKAGE not in Path(last.filename).parents:
                raise AssertionError(f"not our own error: {error!r} of {last.filename}:{last.lineno}") from error
            if not str(error).strip():
                raise AssertionError("an error without a word") from error

    return check
