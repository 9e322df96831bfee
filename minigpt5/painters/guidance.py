"""Objects of `diffusers.guiders` in pipelines that know plain guidance only."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class GuidedDenoiser:
    """A denoiser whose every prediction is what a guider makes of several.

    It stands in the place of the denoiser for one call of its pipeline, whose own guidance is off.

    Args:
        denoiser: all else that is asked of this object is asked of it.
        guider: says which predictions it wants, and joins them.
        scheduler: of the call, for how many steps there are.
        inputs, null: the denoiser's arguments that hold the conditioning, and with null features.
    """

    def __init__(self, denoiser: nn.Module, guider: Any, scheduler: Any, inputs: dict[str, Any], null: dict[str, Any]):
        self.denoiser, self.guider, self.scheduler, self.null = denoiser, guider, scheduler, null
        self.names, self.steps = list(inputs), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.denoiser, name)

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor]:
        """The guided prediction, as the denoiser returns it with `return_dict=False`."""
        guider, denoiser = self.guider, self.denoiser
        timesteps = self.scheduler.timesteps
        step = min(self.steps, len(timesteps) - 1)
        self.steps += 1
        guider.set_state(step=step, num_inference_steps=len(timesteps), timestep=timesteps[step])
        batches = guider.prepare_inputs({name: (kwargs[name], self.null_like(name, kwargs)) for name in self.names})
        for batch in batches:
            guider.prepare_models(denoiser)
            conditioning = {name: getattr(batch, name) for name in self.names}
            batch.noise_pred = denoiser(*args, **kwargs | conditioning)[0]
            guider.cleanup_models(denoiser)
        return (guider(batches)[0],)

    def null_like(self, name: str, kwargs: dict[str, Any]) -> Any:
        """Null features; of a dictionary of features what else the pipeline put into it stays."""
        null = self.null[name]
        return kwargs[name] | null if isinstance(null, dict) else null
