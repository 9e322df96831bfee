"""Offloading of a model that is used part by part.

Hooks that bring weights to the device, accelerate's and those of diffusers' group offload, wait for the call of the
model that they are on. Who calls its parts instead says when.
"""

from __future__ import annotations

from torch import nn


def bring_to_device(model: nn.Module) -> None:
    """Do what is done before a call of the model: what hangs on no part of it comes to the device."""
    for hook in reversed(_hooks(model)):
        hook.pre_forward(model)


def take_off_device(model: nn.Module) -> None:
    """Do what is done behind a call of the model."""
    for hook in _hooks(model):
        hook.post_forward(model, None)


def _hooks(model: nn.Module) -> list:
    """All hooks on the model itself, from the inmost."""
    accelerate, diffusers = getattr(model, "_hf_hook", None), getattr(model, "_diffusers_hook", None)
    hooks = [] if accelerate is None else [accelerate]
    return hooks if diffusers is None else [*hooks, *diffusers.hooks.values()]
