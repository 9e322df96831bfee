"""`callback_on_step_end` where one pipeline paints through another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from diffusers import DiffusionPipeline

from minigpt5.utils.checks import check_tensor, one_of, shown


class StepCallback:
    """A user's callback as the painter's call is given it.

    The callback gets the pipeline that the user called, and finds there what the painter knows of the call in progress;
    what it sets there, a painter obeys that looks it up at every step. Where guidance puts both halves into one tensor,
    it gets the conditional one.

    Args:
        owner: the pipeline that the user called.
        painter: the pipeline that paints.
        callback: `(pipeline, step, timestep, tensors) -> tensors`, or `None`.
        names: of the tensors that it is given.
        decoded_as: the type that the latents are decoded in, where they are; some calls hand them over in another.
    """

    def __init__(
        self,
        owner: DiffusionPipeline,
        painter: DiffusionPipeline,
        callback: Callable | None,
        names: Sequence[str],
        decoded_as: torch.dtype | None = None,
    ):
        self.owner, self.painter, self.callback = owner, painter, callback
        self.names, self.decoded_as = list(names), decoded_as
        self.null: dict[str, torch.Tensor] = {}
        # Not all calls begin with it.
        painter._interrupt = False

    def arguments(self, parameters: Iterable[str]) -> dict[str, Any]:
        """This callback as an argument of a call with such parameters."""
        if "callback_on_step_end" in parameters:
            # A user's callback may end guidance, which puts both halves of many into one tensor.
            known = {name for name in self.painter._callback_tensor_inputs if not name.startswith("negative_")}
            names = (known if self.callback is not None else known & {"latents"}) | set(self.names)
            return {"callback_on_step_end": self, "callback_on_step_end_tensor_inputs": sorted(names)}
        if self.callback is None or "callback" not in parameters:
            return {}
        if unknown := set(self.names) - {"latents"}:
            raise ValueError(f"{type(self.painter).__name__} shows callbacks its latents only, not {sorted(unknown)}")
        return {"callback": self.on_old_call, "callback_steps": 1}

    def on_old_call(self, step: int, timestep: torch.Tensor, latents: torch.Tensor) -> None:
        """The callback of pipelines that let nobody change tensors but in place."""
        changed = self.call(step, timestep, {"latents": latents}, {"latents": latents})
        if changed.get("latents", latents) is not latents:
            latents.copy_(changed["latents"])

    def __call__(self, painter: DiffusionPipeline, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """What the painter goes on with after a step."""
        latents = tensors.get("latents")
        for name, value in tensors.items():
            if isinstance(value, torch.Tensor) and latents is not None and len(value) == 2 * len(latents):
                self.null[name], tensors[name] = value.chunk(2)
        changed = dict(tensors)
        if self.callback is not None:
            changed |= self.call(step, timestep, {name: tensors[name] for name in self.names}, tensors)
        # Who does not say whether it guides, guides to the end.
        if getattr(painter, "do_classifier_free_guidance", True):
            for name, null in self.null.items():
                null = self.null[name] = changed.get(f"negative_{name}", null)
                changed[name] = torch.cat([null, changed[name]])
        ends = hasattr(type(painter), "interrupt") and getattr(painter, "_interrupt", False)
        last = step + 1 == len(painter.scheduler.timesteps) or ends
        if last and self.decoded_as is not None and "latents" in changed:
            changed["latents"] = changed["latents"].to(self.decoded_as)
        return changed

    def call(self, step: int, timestep: Any, given: dict[str, Any], tensors: dict[str, Any]) -> dict[str, Any]:
        """The user's callback, between two readings of what the pipelines know of the call.

        Args:
            given: the tensors that it is given.
            tensors: all that are known, of which it may return others in their places.

        Raises:
            TypeError, ValueError: if it returns anything else; names the tensor.
        """
        owner, painter = self.owner, self.painter
        scale = getattr(owner, "_guidance_scale", None)
        owner._num_timesteps = len(painter.scheduler.timesteps)
        changed = cast(Callable, self.callback)(owner, step, timestep, given)
        if not isinstance(changed, Mapping):
            raise TypeError(
                "callback_on_step_end must return a dictionary of the tensors that change, "
                f"got {type(changed).__name__}"
            )
        for name, value in changed.items():
            one_of(
                "a tensor that callback_on_step_end returns",
                name,
                getattr(painter, "_callback_tensor_inputs", ("latents",)),
            )
            _check_replacement(f"{name} of what callback_on_step_end returns", value, tensors.get(name))
        if owner is not painter:
            painter._interrupt = owner._interrupt
            if owner._guidance_scale != scale:
                painter._guidance_scale = owner._guidance_scale
        return dict(changed)


def _check_replacement(name: str, value: Any, known: Any) -> None:
    if isinstance(known, list):
        if not isinstance(value, list) or len(value) != len(known):
            raise TypeError(f"{name} must be a list of {len(known)} tensors, got {shown(value)}")
        for one, other in zip(value, known, strict=True):
            _check_replacement(f"an entry of {name}", one, other)
        return
    if known is None:
        # Of a tensor that this call does without, such as null features where nothing guides.
        if value is not None:
            check_tensor(name, value)
        return
    check_tensor(name, value)
    if not isinstance(known, torch.Tensor):
        return
    kinds = [(tuple(tensor.shape), tensor.dtype, tensor.device) for tensor in (known, value)]
    if kinds[0] != kinds[1]:
        own, given = (f"{shape} of {dtype} on {device}" for shape, dtype, device in kinds)
        raise ValueError(f"{name} must be {own}, got {given}")
