"""The miniature's own parts, untrained, as a pipeline."""

from .base import PipelineConfig
from .batches import BatchMixin
from .callbacks import CallbackMixin
from .compiling import CompileMixin
from .diffusion import DiffusionMixin
from .memory import MemoryMixin
from .outputs import OutputMixin
from .precision import PrecisionMixin
from .prompts import PromptMixin
from .saving import SavingMixin
from .streaming import StreamingMixin


class TestMiniGPT5Pipeline(
    PipelineConfig,
    OutputMixin,
    PromptMixin,
    DiffusionMixin,
    CallbackMixin,
    BatchMixin,
    StreamingMixin,
    SavingMixin,
    PrecisionMixin,
    MemoryMixin,
    CompileMixin,
):
    """`PipelineConfig` as it is."""
