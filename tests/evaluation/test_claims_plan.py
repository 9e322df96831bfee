"""The page of the plan is the plan."""

import runpy
from pathlib import Path

from minigpt5.evaluation.claims.plan import CLAIMS, KINDS, PARTS, SYSTEMS, Amounts
from minigpt5.evaluation.claims.register import TITLE, hours, pictures, plan_blocks
from minigpt5.evaluation.claims.report import markdown

ROOT = Path(__file__).parents[2]


def test_the_page_is_written_from_the_plan(tmp_path):
    """After a change of the plan: `python evaluation/reproduce_claims.py --plan`."""
    program = runpy.run_path(str(ROOT / "evaluation" / "reproduce_claims.py"))
    program["main"](program["ClaimsConfig"](work=tmp_path, out=tmp_path, plan=True))
    written = (tmp_path / "claims-plan.md").read_text(encoding="utf-8")
    assert written == (ROOT / "docs" / "claims-plan.md").read_text(encoding="utf-8")
    assert written == markdown(TITLE, plan_blocks(), tmp_path)


def test_the_page_has_every_statement_and_system():
    page = markdown(TITLE, plan_blocks(), ROOT)
    for name, claim in CLAIMS.items():
        assert f"**{name}. {claim.title}.**" in page
        assert all(f"| {statement.told} |" in page for statement in claim.statements)
    assert all(f"| `{name}` | {system.told} |" in page for name, system in SYSTEMS.items())


def test_the_budget_fits_ten_hours_on_two_cores():
    amounts = Amounts()
    rows, total = hours(amounts)
    assert 0 < total <= 20
    assert all(part.seconds > 0 for part in (*PARTS.values(), *KINDS.values()))
    align = next(row for row in rows if row[0] == "align")
    part = KINDS["align"]
    count = sum(system.kind == "align" for system in SYSTEMS.values())
    assert align[1:4] == [str(count), "3", str(part.steps)]
    assert float(align[6]) == round(count * 3 * part.steps * part.seconds / 3600, 1)


def test_replies_are_counted_by_what_is_asked():
    amounts = Amounts()
    assert pictures("data-125", amounts) == amounts.captions
    assert pictures("align", amounts) == amounts.captions + 2 * len(amounts.scales) * amounts.guidance
    assert pictures("two-stage", amounts) == 3 * amounts.stories
