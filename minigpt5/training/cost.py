"""What a training run holds in memory beside its activations, by part and by kind."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn


@dataclass
class PartCost:
    """Bytes of one part; `parameters` and `trainable` count numbers. Gradients are as wide as what they are of."""

    name: str
    parameters: int = 0
    trainable: int = 0
    weights: int = 0
    gradients: int = 0
    optimizer: int = 0
    averages: int = 0


def training_cost(module: nn.Module, averaged: bool = False) -> list[PartCost]:
    """What each child of a module costs in a run with AdamW, whose two moments are as wide as the parameters.

    Args:
        averaged: whether a moving average of what trains is kept.
    """
    seen, parts = set(), []
    for name, child in [("", None), *module.named_children()]:
        part = PartCost(name or "(itself)")
        for parameter in child.parameters() if child else module.parameters(recurse=False):
            if parameter in seen:
                continue
            seen.add(parameter)
            size = parameter.numel() * parameter.element_size()
            part.parameters += parameter.numel()
            part.weights += size
            if parameter.requires_grad:
                part.trainable += parameter.numel()
                part.gradients += size
                part.optimizer += 2 * size
                part.averages += size if averaged else 0
        if part.parameters:
            parts.append(part)
    return parts


def cost_table(parts: list[PartCost]) -> str:
    """The costs as a table, in millions of numbers and in GB (1e9 bytes), with their sum."""
    total = PartCost("together")
    for part in parts:
        for kind in ("parameters", "trainable", "weights", "gradients", "optimizer", "averages"):
            setattr(total, kind, getattr(total, kind) + getattr(part, kind))
    header = f"{'part':<20}{'parameters':>13}{'trainable':>12}{'weights':>11}{'gradients':>11}{'optimizer':>11}"
    lines = [f"{header}{'averages':>11}"]
    for part in [*parts, total]:
        counts = f"{part.name:<20}{part.parameters / 1e6:>11.3f} M{part.trainable / 1e6:>10.3f} M"
        sizes = (part.weights, part.gradients, part.optimizer, part.averages)
        lines.append(counts + "".join(f"{size / 1e9:>8.4f} GB" for size in sizes))
    lines.append(f"gradients + optimizer state: {(total.gradients + total.optimizer) / 1e9:.3f} GB")
    return "\n".join(lines)
