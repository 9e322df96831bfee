"""The paper's tables, figures and nine claims (arXiv 2310.02239, section 4) out of measured rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from minigpt5.evaluation.claims.report import Block, Heading, Paragraph, Plot, Table, cell
from minigpt5.evaluation.claims.rows import FIGURES, Rows
from minigpt5.evaluation.claims.verdicts import Claim, Statement, counts, flat, more, no_less
from minigpt5.evaluation.items import CONTEXTS
from minigpt5.metrics.intervals import bootstrap_interval

Measured = Mapping[str, Mapping[str, Rows]]
"""Rows by system, then by task."""

LORA, PREFIX, NO_UAS = "MiniGPT-5, LoRA", "MiniGPT-5, prefix tuning", "MiniGPT-5 without UAS"
ZERO_SHOT, FINE_TUNED, TWO_STAGE = "zero-shot SD", "fine-tuned SD", "two-stage"
GILL, DIVTER, SHIPPED = "GILL", "Divter", "storyworld-mini (full budget)"
FULL, NO_GUIDANCE, NO_LDM, NO_CAPTION = (
    "full alignment",
    "without guidance training",
    "without L_LDM (GILL's objective)",
    "without L_caption",
)
CAPTIONS, EVERY, NEXT, TURN = "caption to picture", "every step", "next step", "next turn"
VOKENS = (1, 2, 4, 8, 16)
# How much worse still counts as equal.
MARGIN = 0.02
TEXT_MARGIN = 0.05

INTRODUCTION = (
    "The nine claims of MiniGPT-5 (arXiv 2310.02239, section 4), put to the test in miniature: on StoryWorld, a "
    "picture-book world whose every frame is known, with models of 13 M parameters trained on CPU cores. "
    "`evaluation/reproduce_claims.py` trains, measures and writes this page; nothing on it is edited by hand. A "
    "verdict here says whether the claim shows at this size and budget, not whether the paper is right."
)
STAND_INS = (
    "**What stands in for what.** Weights of CLIP and of Inception could not be had on the machine that made this "
    "page. CLIP-I is replaced by **similarity**, the cosine of the StoryWorld judge's last features of a picture and "
    "of the true one; FID by the **Fréchet distance** over the same features, pooled; CLIP-T by **agrees**, the share"
    " of pictures that show all that their text names. **Attributes** is the share of kind, colour, side, place and "
    "time that are those of the true frame, **frame accuracy** the share of pictures with all of them. MM-Relevance "
    "per turn compares pictures by the judge's features and texts by sentence vectors of all-MiniLM-L6-v2. METEOR is "
    "left out: without WordNet it is another figure. None of these numbers can be compared with the paper's; their "
    "order can."
)
COMPARED = (
    "**What is compared.** Systems that are compared with each other had the same number of steps at the same batch"
    " size. Alignment variants (claims 7 and 9) start from the same untrained vokens and mapper and learn captions "
    "of one character; the diffusion loss comes in late for all but the one without caption loss, which has it from"
    " the start. As in all of the miniature, a naming head that knows StoryWorld's ground truth helps every variant"
    " alike. Variants of the second stage (claims 2 to 6) start from the miniature's own first stage at full "
    "budget, the one without UAS from untrained vokens and mapper. Claims 1 and 8 look at one system, the shipped "
    "model; its rows elsewhere are there for orientation. The base's UNet was trained on captions; fine-tuned SD "
    "learnt sentences of stories. Divter's budget went into dialogue alone, four times as much of it as the others "
    "had. The alignment variants have a tenth of the samples that the miniature's own first stage has, and no fit "
    "of the mapper behind it: claims 7 and 9 are about an early stage of training, and the frame accuracy beside "
    "Figure 7 says how early."
)


def vokens_system(count: int) -> str:
    """The name of the system with that many vokens; eight are what all others have."""
    return FULL if count == 8 else f"{count} voken{'s' * (count > 1)}"


def guidance_system(scale: float) -> str:
    """The name of the full-budget model painting at that guidance scale."""
    return f"guidance {scale:g}"


def final(context: str) -> str:
    """The task of the final step's picture under a context."""
    return f"final, {context} context"


def check_claims(measured: Measured) -> list[Claim]:
    """The nine claims with their verdicts; one that speaks of a system without rows is left without statements."""
    return [Claim(number, title, _stated(state, measured)) for number, (title, state) in enumerate(_CLAIMS, start=1)]


def _stated(state: Callable[[Measured], Iterator[Statement]], measured: Measured) -> tuple[Statement, ...]:
    try:
        return tuple(state(measured))
    except KeyError:
        return ()


def _beats(measured: Measured, one: str, other: str, task: str, *figures: str) -> Iterator[Statement]:
    for figure in figures:
        difference = measured[one][task].minus(measured[other][task], figure)
        yield more(f"{FIGURES[figure].label[:-2]}, {task}: {one} better than {other}", difference)


def _context(measured: Measured) -> Iterator[Statement]:
    tasks = measured[SHIPPED]
    for poorer, richer in pairwise(CONTEXTS):
        difference = tasks[final(richer)].minus(tasks[final(poorer)], "similarity")
        yield more(f"similarity: {richer} context above {poorer}", difference)


def _alignment_stage(measured: Measured) -> Iterator[Statement]:
    for task in (final("image-text"), EVERY):
        yield from _beats(measured, LORA, NO_UAS, task, "similarity", "frechet")


def _multi_step(measured: Measured) -> Iterator[Statement]:
    for one, other in ((LORA, FINE_TUNED), (FINE_TUNED, ZERO_SHOT)):
        yield from _beats(measured, one, other, EVERY, "similarity", "frame")


def _text(measured: Measured) -> Iterator[Statement]:
    for figure in ("s_bert", "rouge_l", "text_accuracy"):
        difference = measured[LORA][NEXT].minus(measured[TWO_STAGE][NEXT], figure)
        yield no_less(f"{FIGURES[figure].label[:-2]}, {NEXT}: no worse than text alone", difference, TEXT_MARGIN)


def _coherence(measured: Measured) -> Iterator[Statement]:
    yield from _beats(measured, LORA, TWO_STAGE, NEXT, "hero", "frame")


def _dialogue(measured: Measured) -> Iterator[Statement]:
    for other in (DIVTER, GILL):
        yield from _beats(measured, LORA, other, TURN, "mm_relevance", "picture_f1")


def _ablations(measured: Measured) -> Iterator[Statement]:
    bound = measured[ZERO_SHOT][CAPTIONS].minus(measured[FULL][CAPTIONS], "similarity")
    yield no_less(f"similarity: {ZERO_SHOT} no worse than {FULL}", bound, MARGIN)
    for other in (NO_GUIDANCE, NO_LDM, NO_CAPTION):
        yield from _beats(measured, FULL, other, CAPTIONS, "similarity")


def _guidance(measured: Measured) -> Iterator[Statement]:
    little, own, much, most = (measured[guidance_system(scale)][CAPTIONS] for scale in (1, 2.5, 10, 20))
    yield more("similarity: guidance 2.5 above 1", own.minus(little, "similarity"))
    yield flat("agreement with the caption: 20 as 10", most.minus(much, "agrees"), TEXT_MARGIN)
    yield more("Fréchet distance: 10 better than 20", much.minus(most, "frechet"))


def _vokens(measured: Measured) -> Iterator[Statement]:
    rows = {count: measured[vokens_system(count)][CAPTIONS] for count in VOKENS}
    for fewer, count in ((1, 2), (2, 4), (4, 8)):
        yield more(f"similarity: {count} above {fewer}", rows[count].minus(rows[fewer], "similarity"))
    yield no_less("similarity: 16 no worse than 8", rows[16].minus(rows[8], "similarity"), MARGIN)

    def early_lead(groups: np.ndarray) -> float:
        steps = np.diff(np.nanmean(groups, axis=(0, 1)))
        return float(max(steps[:2]) - max(steps[2:]))

    likeness = np.concatenate([one.parts["similarity"] for one in rows.values()], axis=2)
    lead = bootstrap_interval(likeness, early_lead)
    yield more("similarity: largest step up to 4 above largest step after it", lead)


_CLAIMS: tuple[tuple[str, Callable[[Measured], Iterator[Statement]]], ...] = (
    ("The more context, the nearer the final picture is to the true one (Table 1)", _context),
    ("Without the alignment stage everything is worse (Tables 1 and 2)", _alignment_stage),
    ("Multi-step pictures: MiniGPT-5 above fine-tuned SD above zero-shot SD (Table 2)", _multi_step),
    ("Its text is as good as that of the comprehension stack fine-tuned for text alone (Table 3)", _text),
    ("Multimodal coherence above the two-stage baseline (Table 4)", _coherence),
    ("It places pictures better in dialogue (Table 5)", _dialogue),
    ("Every part of the alignment helps, and zero-shot SD is its upper bound (Table 6)", _ablations),
    ("Guidance gains; past a scale of about 10 coherence is flat and quality falls (Figure 6)", _guidance),
    ("Vokens: 1 < 2 < 4 < 8 ≤ 16, the largest step before 4 (Figure 7)", _vokens),
)


def table(measured: Measured, task: str, systems: Sequence[str], figures: Sequence[str]) -> Table:
    """Figures of systems in one task; what a system has no part of is left empty, one without rows left out."""
    rows = []
    for system in systems:
        taken = measured.get(system, {}).get(task)
        if taken is None:
            continue
        rows.append([system, *(_figure(taken, figure) if figure in taken else "" for figure in figures)])
    return Table(["", *(FIGURES[figure].label for figure in figures)], rows)


def _figure(rows: Rows, figure: str) -> str:
    # Of a whole set, and resampled too large: an interval would not hold it.
    return f"{rows.estimate(figure):.3f}" if figure == "frechet" else cell(rows.interval(figure))


def summary(claims: Sequence[Claim]) -> list[Block]:
    """All verdicts at a glance, then each statement with its interval."""
    blocks: list[Block] = [
        Heading("Verdicts"),
        Paragraph(f"**{counts(claims)}**, of {len(claims)} claims."),
        Table(["", "claim", "verdict"], [[str(claim.number), claim.title, claim.verdict] for claim in claims]),
        Paragraph(
            "Each claim is a list of statements about paired differences, signed so that above 0 is in its favour, "
            "with 95 % bootstrap intervals over captions, stories or talks. A statement is PASS where its whole "
            "interval is on its side, FAIL where all of it is on the other, UNDECIDED otherwise; a claim is FAIL if "
            "any statement is, and PASS only if all are. “No worse” and “as” allow the margin that stands with them."
        ),
    ]
    rows = []
    for claim in claims:
        rows += [[f"{claim.number}", one.text, cell(one.difference), one.verdict] for one in claim.statements]
        rows += [] if claim.statements else [[f"{claim.number}", "not measured", "", claim.verdict]]
    return [*blocks, Table(["claim", "statement", "difference", "verdict"], rows)]


def tables(measured: Measured, plots: Mapping[str, Sequence[Plot]], scales: Sequence[float]) -> list[Block]:
    """Tables 1 to 6 and figures 6 and 7."""
    pictures = ("similarity", "attributes", "frame", "frechet")
    first = [
        [name, *(_in_context(measured.get(name, {}), context) for context in CONTEXTS)]
        for name in (SHIPPED, LORA, PREFIX, NO_UAS, FINE_TUNED, ZERO_SHOT)
    ]
    spoken = ("s_bert", "rouge_l", "bleu_1", "bleu_2", "text_accuracy")
    stories = (LORA, PREFIX, NO_UAS)
    return [
        Heading("Table 1: the final picture under no, text, image and image-text context"),
        Table(["similarity ↑ / frame accuracy ↑", *CONTEXTS], first),
        Paragraph("Diffusion alone reads no context, so it has one column."),
        Heading("Table 2: a picture for every step after the true steps before it"),
        table(measured, EVERY, (*stories, FINE_TUNED, ZERO_SHOT, SHIPPED), (*pictures, "hero")),
        *plots.get("stories", ()),
        Heading("Table 3: the text of the next step"),
        table(measured, NEXT, (LORA, PREFIX, NO_UAS, TWO_STAGE, SHIPPED), spoken),
        Paragraph("The row two-stage is the comprehension stack fine-tuned for text alone."),
        Heading("Table 4: coherence of the next step's text and picture"),
        table(measured, NEXT, (LORA, PREFIX, NO_UAS, TWO_STAGE, SHIPPED), ("hero", "frame", "agrees")),
        Paragraph(
            "In the place of people's choices: whether the hero is the same animal of the same colour, whether the "
            "picture is the true next one, and whether it shows what the reply's own text says."
        ),
        Heading("Table 5: replies in dialogue"),
        table(
            measured,
            TURN,
            (LORA, PREFIX, GILL, DIVTER, SHIPPED),
            ("mm_relevance", "picture_f1", "frame", "s_bert", "rouge_l"),
        ),
        Heading("Table 6: ablations of the alignment stage"),
        table(measured, CAPTIONS, (ZERO_SHOT, FULL, NO_GUIDANCE, NO_LDM, NO_CAPTION), (*pictures, "agrees")),
        Heading("Figure 6: guidance scale"),
        *plots.get("guidance", ()),
        *plots.get("guidance-pictures", ()),
        table(measured, CAPTIONS, [guidance_system(scale) for scale in scales], (*pictures, "agrees")),
        Heading("Figure 7: number of vokens"),
        *plots.get("vokens", ()),
        table(measured, CAPTIONS, [vokens_system(count) for count in VOKENS], (*pictures, "agrees")),
    ]


def _in_context(tasks: Mapping[str, Rows], context: str) -> str:
    rows = tasks.get(final(context))
    if rows is None:
        return ""
    return f"{cell(rows.interval('similarity'))} / {rows.interval('frame').estimate:.3f}"
