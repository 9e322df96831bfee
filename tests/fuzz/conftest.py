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
from hypothesis import HealthCheck, Phase, settings

import minigpt5
from minigpt5 import MiniGPT5Pipeline

HERE, PACKAGE = Path(__file__).parent, Path(minigpt5.__file__).parent
LONGEST = {"quick": 60, "thorough": 600}

# No time is spent on smaller examples: what fails is printed as it is found.
_PHASES = (Phase.explicit, Phase.generate)
_SHARED = {
    "deadline": None,
    "suppress_health_check": list(HealthCheck),
    "database": None,
    "print_blob": True,
    "phases": _PHASES,
    "report_multiple_bugs": False,
}
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
def small_pipe(small_folder):
    """A whole pipeline of 2 MB that paints 16 pixels, to be left as it is."""
    pipe = MiniGPT5Pipeline.from_pretrained(small_folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def clear_errors():
    """A context that lets pass what works, and what minigpt5 itself refuses; anything else fails.

    Kinds of exceptions other than ValueError and TypeError may be named: `clear_errors(ValueError, OSError)`. It gives
    a list that holds the error then.
    """

    @contextmanager
    def check(*kinds):
        expected, caught = kinds or (ValueError, TypeError), []
        try:
            yield caught
        except expected as error:
            caught.append(error)
            last = traceback.extract_tb(error.__traceback__)[-1]
            # An error of the system that names its file is as clear as one of ours.
            named = isinstance(error, OSError) and error.filename is not None
            if not named and PACKAGE not in Path(last.filename).parents:
                raise AssertionError(f"not our own error: {error!r} of {last.filename}:{last.lineno}") from error
            if not str(error).strip():
                raise AssertionError("an error without a word") from error

    return check
