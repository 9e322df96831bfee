r"""Put the paper's nine claims to the test on StoryWorld: train what is missing, measure, write docs/claims.md.

    python evaluation/reproduce_claims.py --work runs/claims --data runs/mini/data --base runs/mini/base \
        --aligned runs/mini/mapper/model --judge runs/mini/judge/model
    python evaluation/reproduce_claims.py --quick --work /tmp/claims --out /tmp/claims/report

What is trained and asked stands in `minigpt5/evaluation/claims/plan.py`. Systems that are compared have the same number
of training steps, see configs/storyworld-claims/. Whatever was trained or measured under `--work` is not done again.
`--quick` trains two steps of everything on data of its own: its figures mean nothing, it shows that the program runs.
"""

from dataclasses import dataclass
from pathlib import Path

from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import Settings, setting
from minigpt5.weights import check_model, shipped_model

ROOT = Path(__file__).parents[1]


@dataclass(kw_only=True)
class ClaimsConfig(Settings):
    """A run of the claims."""

    work: Path = setting(help="folder for models, replies and rows; kept and reused")
    data: Path | None = setting(None, help="StoryWorld's exported data; required without --quick")
    base: str = setting("storyworld-mini", help="pipeline before the first stage")
    aligned: str = setting("storyworld-mini", help="pipeline after the first stage at full budget")
    model: str = setting("storyworld-mini", help="finished model at full budget")
    adapter: Path | None = setting(None, help="folder of what training made beside the finished model")
    judge: Path | None = setting(None, help="folder of the judge; null for the one that ships")
    out: Path = setting(ROOT / "docs", help="folder for claims.md, claims.html, images/claims")
    quick: bool = setting(False, help="two steps and two items of everything, on data of its own")
    report: bool = setting(False, help="train and measure nothing, report what is measured")

    def __post_init__(self):
        super().__post_init__()
        if not self.quick and self.data is None:
            raise ValueError("data is not set: the folder that training/export_storyworld.py wrote")
        for model in (self.base, self.aligned, self.model):
            check_model(model)
        for name in ("data", "adapter", "judge"):
            path = getattr(self, name)
            if path is not None and not path.is_dir():
                raise ValueError(f"{name}: there is no folder {path}")


def main(config: ClaimsConfig):
    from minigpt5.evaluation.claims.page import write_page
    from minigpt5.evaluation.claims.paper import check_claims
    from minigpt5.evaluation.claims.plan import FEW, Counts
    from minigpt5.evaluation.claims.runner import ClaimsRun
    from minigpt5.evaluation.claims.verdicts import counts
    from minigpt5.storyworld.judge import WEIGHTS

    models = {"base": config.base, "aligned": config.aligned, "shipped": config.model}
    folders = {name: Path(shipped_model(model)) for name, model in models.items()}
    folders |= {"work": config.work, "data": config.data or config.work / "data", "judge": config.judge or WEIGHTS}
    if config.adapter:
        folders["adapter"] = config.adapter
    amounts = FEW if config.quick else Counts()
    run = ClaimsRun(folders, ROOT / "training", ROOT / "configs" / "storyworld-claims", amounts, config.quick)
    if not config.report:
        run.run()
    measured = run.read()
    claims = check_claims(measured)
    write_page(run, claims, measured, config.out)
    print(f"{counts(claims)}: {config.out / 'claims.md'}")


if __name__ == "__main__":
    run_program(main, ClaimsConfig, __doc__)
