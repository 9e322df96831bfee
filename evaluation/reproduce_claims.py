r"""Decide the paper's claims in a small world: train what is missing, measure, write docs/claims.md.

    python evaluation/reproduce_claims.py
    python evaluation/reproduce_claims.py --minutes 60
    python evaluation/reproduce_claims.py --quick --work /tmp/claims --out /tmp/claims/report

What is trained, asked and stated stands in `minigpt5/evaluation/claims/plan.py`, in words in `docs/claims-plan.md`. The
program may be stopped at any time and goes on where it was; `--minutes` stops it by itself. `--quick` trains a few
steps of everything: its figures mean nothing, it shows that the program runs.
"""

from dataclasses import dataclass
from pathlib import Path

from minigpt5.utils.programs import run_program
from minigpt5.utils.settings import Settings, setting

ROOT = Path(__file__).parents[1]


@dataclass(kw_only=True)
class ClaimsConfig(Settings):
    """A run of the claims."""

    work: Path = setting(Path("runs/claims"), help="folder for models, curves and rows; kept and gone on with")
    out: Path = setting(ROOT / "docs", help="folder for claims.md, claims.html, paper-tables.md, images/claims")
    minutes: float | None = setting(None, above=0, help="stop after so long, to go on another time; null for the end")
    quick: bool = setting(False, help="a few steps and items of everything")
    report: bool = setting(False, help="train and measure nothing, report what is measured")
    plan: bool = setting(False, help="write claims-plan.md from the plan, and do nothing else")
    job: str | None = setting(None, help="do these jobs and no report, as the program itself does in processes")


def main(config: ClaimsConfig):
    from minigpt5.evaluation.claims.plan import FEW, Amounts
    from minigpt5.evaluation.claims.runner import ClaimsRun

    run = ClaimsRun(config.work, Path(__file__), FEW if config.quick else Amounts())
    if config.plan:
        from minigpt5.evaluation.claims.register import TITLE, plan_blocks
        from minigpt5.evaluation.claims.report import markdown
        from minigpt5.utils.files import write_text

        write_text(config.out / "claims-plan.md", markdown(TITLE, plan_blocks(), config.out))
        return
    run.check_plan()
    if config.job:
        run.do(config.job.split(","))
        return
    if not config.report and not run.run(config.minutes):
        print("stopped; the same command goes on")
        return
    from minigpt5.evaluation.claims.page import write_pages

    print(f"{write_pages(run, config.out)}: {config.out / 'claims.md'}")


if __name__ == "__main__":
    run_program(main, ClaimsConfig, __doc__)
