"""The miniature's own parts with the other connector between them."""

import random

import pytest
import torch

from minigpt5 import QueryConnector
from minigpt5.data.tasks import draw_task
from minigpt5.training.objective import LossWeights, VokenModel

from .base import PipelineConfig
from .batches import BatchMixin
from .memory import MemoryMixin
from .saving import SavingMixin


class TestQueryConnectorPipeline(PipelineConfig, BatchMixin, MemoryMixin, SavingMixin):
    connector = "QueryConnector"

    @pytest.fixture(scope="class")
    @classmethod
    def other(cls, tiny_pipe):
        torch.manual_seed(0)
        sizes = {"text_dim": 128, "text_length": tiny_pipe.processor.n_vokens, "num_layers": 2, "head_dim": 32}
        return QueryConnector(voken_dim=192, **sizes).eval()

    @pytest.fixture
    def pipe(self, pipe, other):
        pipe.mapper = other
        return pipe

    @pytest.fixture
    def folder(self, pipe, tmp_path_factory):
        folder = tmp_path_factory.mktemp("models") / "queries"
        pipe.save_pretrained(folder)
        return folder

    def test_the_voken_stages_losses_reach_all_of_it(self, opened, pictures):
        pipe = opened()
        model = VokenModel(pipe, LossWeights(caption=0.0, guidance_dropout=0.0))
        pipe.mapper.requires_grad_(True)
        tasks = [draw_task("a red fox", picture, random.Random(0)) for picture in pictures[:2]]
        model(model.prepare(pipe.processor.training_batch(tasks)))["loss"].backward()
        assert all(p.grad.isfinite().all() and p.grad.any() for p in pipe.mapper.parameters())
