r"""Mix the weights of two trainings of one model: beta times the first's and 1 - beta times the other's.

    python training/mix_weights.py --one runs/real/model --other runs/synthetic/model --beta 0.5 --out runs/mixed

So SPHINX joins what it learnt of real and of synthetic pictures (arXiv 2311.07575, section 3.1), and so the weights of
`storyworld-mini` were made of the last two runs of their training. Both are a pipeline's folder, or both a reader's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from minigpt5.pipeline import MiniGPT5Pipeline
from minigpt5.readers.sphinx import mix_weights
from minigpt5.training.results import open_result, save_result
from minigpt5.utils.integrity import few
from minigpt5.utils.programs import ProgramError, opening, run_program
from minigpt5.utils.settings import Settings, setting


@dataclass(kw_only=True)
class MixConfig(Settings):
    """Two models and their shares."""

    one: Path = setting(help="pipeline, or a reader's folder, whose settings are kept")
    other: Path = setting(help="the same model, trained otherwise")
    beta: float = setting(0.5, least=0, most=1, help="share of the first")
    out: Path = setting(help="folder of the mixed model", passing=True)


def networks(saved: Any) -> Mapping[str, nn.Module]:
    """The networks of a pipeline by their names; a reader is one by itself."""
    parts = saved.components if isinstance(saved, MiniGPT5Pipeline) else {"reader": saved}
    return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}


def main(config: MixConfig):
    with opening(config.one):
        mixed, *beside = open_result(config.one)
    with opening(config.other):
        other, *_ = open_result(config.other)
    ours, others = networks(mixed), networks(other)
    if ours.keys() != others.keys():
        raise ProgramError(f"{config.one} has {', '.join(ours)}, but {config.other} has {', '.join(others)}")
    for name, network in ours.items():
        # A matrix that two layers share has one name.
        names, other_names = ({each for each, _ in one.named_parameters()} for one in (network, others[name]))
        if unlike := names ^ other_names:
            raise ProgramError(f"{name}: {few(unlike)} are weights of their own in one of the two models only")
        try:
            network.load_state_dict(mix_weights(network.state_dict(), others[name].state_dict(), config.beta))
        except ValueError as error:
            raise ProgramError(f"{name}: {error}") from error
    save_result(mixed, config.out, *beside)
    print(f"{config.out}: {config.beta:g} of {config.one}, the rest of {config.other}")


if __name__ == "__main__":
    run_program(main, MixConfig, __doc__)
