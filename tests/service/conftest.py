"""What tests of the engine and of its routes share."""

import threading

import pytest

from minigpt5.vokens.decoding import DecodingBatch


@pytest.fixture
def held(monkeypatch):
    """Steps of decoding wait for `held.set()`."""
    gate, genuine = threading.Event(), DecodingBatch.step

    def step(batch):
        assert gate.wait(60)
        return genuine(batch)

    monkeypatch.setattr(DecodingBatch, "step", step)
    yield gate
    gate.set()
