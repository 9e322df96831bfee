"""The paper's tables, figures and nine claims (arXiv 2310.02239, section 4) out of measured rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from minigpt5.claims.figures import FIGURES, Rows
from minigpt5.claims.report import Block, Heading, Paragraph, Plot, Table, cell
from minigpt5.claims.verdicts import Claim, counts, flat, more, no_less
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
    "**What is compared.** Systems that are compared with each other had the same number of steps at the same batch "
    "size. Alignment variants (claims 7 and 9) start from the same untrained vokens and mapper and learn captions of "
    "one character; the diffusion loss comes in late for all but the one without caption loss, which has it from the "
    "start. As in all of the miniature, a naming head that knows StoryWorld's ground truth helps every variant alike."
    " Variants of the second stage (claims 2 to 6) start from the miniature's own first stage at full budget, the one"
    " without UAS from untrained vokens and mapper. Claims 1 and 8 look at one system, the shipped model; its rows "
    "elsewhere are there for orientation. The base's UNet was trained on captions; fine-tuned SD learnt sentences of "
    "stories. Divter's budget went into dialogue alone."
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
    """The nine claims with their verdicts."""

    def gap(one: str, other: str, task: str, figure: str):
        return measured[one][task].minus(measured[other][task], figure)

    def beats(one: str, other: str, task: str, *figures: str):
        return [
            more(f"{FIGURES[figure].label[:-2]}, {task}: {one} better than {other}", gap(one, other, task, figure))
            for figure in figures
        ]

    contexts = [measured[SHIPPED][final(name)] for name in CONTEXTS]
    context_steps = zip(CONTEXTS, contexts, list(CONTEXTS)[1:], contexts[1:], strict=False)
    scales = {scale: measured[guidance_system(scale)][CAPTIONS] for scale in (1, 2.5, 10, 20)}
    vokens = {count: measured[vokens_system(count)][CAPTIONS] for count in VOKENS}
    likeness = np.concatenate([rows.parts["similarity"] for rows in vokens.values()], axis=2)

    def early_lead(groups: np.ndarray) -> float:
        steps = np.diff(np.nanmean(groups, axis=(0, 1)))
        return float(max(steps[:2]) - max(steps[2:]))

    return [
        Claim(
            1,
            "The more context, the nearer the final picture is to the true one (Table 1)",
            tuple(
                more(f"similarity: {richer} context above {poorer}", after.minus(before, "similarity"))
                for poorer, before, richer, after in context_steps
            ),
        ),
        Claim(
            2,
            "Without the alignment stage everything is worse (Tables 1 and 2)",
            (
                *beats(LORA, NO_UAS, final("image-text"), "similarity", "frechet"),
                *beats(LORA, NO_UAS, EVERY, "similarity", "frechet"),
            ),
        ),
        Claim(
            3,
            "Multi-step pictures: MiniGPT-5 above fine-tuned SD above zero-shot SD (Table 2)",
            (
                *beats(LORA, FINE_TUNED, EVERY, "similarity", "frame"),
                *beats(FINE_TUNED, ZERO_SHOT, EVERY, "similarity", "frame"),
            ),
        ),
        Claim(
            4,
            "Its text is as good as that of the comprehension stack fine-tuned for text alone (Table 3)",
            tuple(
                no_less(
                    f"{FIGURES[figure].label[:-2]}, {NEXT}: no worse than text alone",
                    gap(LORA, TWO_STAGE, NEXT, figure),
                    TEXT_MARGIN,
                )
                for figure in ("s_bert", "rouge_l", "text_accuracy")
            ),
        ),
        Claim(
            5,
            "Multimodal coherence above the two-stage baseline (Table 4)",
            tuple(beats(LORA, TWO_STAGE, NEXT, "hero", "frame")),
        ),
        Claim(
            6,
            "It places pictures better in dialogue (Table 5)",
            (
                *beats(LORA, DIVTER, TURN, "mm_relevance", "picture_f1"),
                *beats(LORA, GILL, TURN, "mm_relevance", "picture_f1"),
            ),
        ),
        Claim(
            7,
            "Every part of the alignment helps, and zero-shot SD is its upper bound (Table 6)",
            (
                no_less(
                    f"similarity: {ZERO_SHOT} no worse than {FULL}",
                    gap(ZERO_SHOT, FULL, CAPTIONS, "similarity"),
                    MARGIN,
                ),
                *(
                    statement
                    for other in (NO_GUIDANCE, NO_LDM, NO_CAPTION)
                    for statement in beats(FULL, other, CAPTIONS, "similarity")
                ),
            ),
        ),
        Claim(
            8,
            "Guidance gains; past a scale of about 10 coherence is flat and quality falls (Figure 6)",
            (
                more("similarity: guidance 2.5 above 1", scales[2.5].minus(scales[1], "similarity")),
                flat("agreement with the caption: 20 as 10", scales[20].minus(scales[10], "agrees"), TEXT_MARGIN),
                more("Fréchet distance: 10 better than 20", scales[10].minus(scales[20], "frechet")),
            ),
        ),
        Claim(
            9,
            "Vokens: 1 < 2 < 4 < 8 ≤ 16, the largest step before 4 (Figure 7)",
            (
                *(
                    more(f"similarity: {count} above {fewer}", vokens[count].minus(vokens[fewer], "similarity"))
                    for fewer, count in ((1, 2), (2, 4), (4, 8))
                ),
                no_less("similarity: 16 no worse than 8", vokens[16].minus(vokens[8], "similarity"), MARGIN),
                more(
                    "similarity: largest step up to 4 above largest step after it",
                    bootstrap_interval(likeness, early_lead),
                ),
            ),
        ),
    ]


def table(measured: Measured, task: str, systems: Sequence[str], figures: Sequence[str]) -> Table:
    """Figures of systems in one task; what a system has no part of is left empty."""
    rows = []
    for system in systems:
        taken = measured[system][task]
        rows.append([system, *(_figure(taken, figure) if figure in taken else "" for figure in figures)])
    return Table(["", *(FIGURES[figure].label for figure in figures)], rows)


def _figure(rows: Rows, figure: str) -> str:
    if figure != "frechet":
        return cell(rows.interval(figure))
    # Of a whole set; its interval is costly and only taken where a claim needs one.
    part = rows.parts["features"]
    return f"{FIGURES[figure].statistic(part.reshape(-1, part.shape[-1])):.3f}"


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
    rows = [
        [f"{claim.number}", statement.text, cell(statement.difference), statement.verdict]
        for claim in claims
        for statement in claim.statements
    ]
    return [*blocks, Table(["claim", "statement", "difference", "verdict"], rows)]


def tables(measured: Measured, plots: Mapping[str, Plot], scales: Sequence[float]) -> list[Block]:
    """Tables 1 to 6 and figures 6 and 7."""
    pictures = ("similarity", "attributes", "frame", "frechet")
    first = [
        [name, *(_context(measured[name], context) for context in CONTEXTS)]
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
        plots["stories"],
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
            (LORA, PREFIX, NO_UAS, GILL, DIVTER, SHIPPED),
            ("mm_relevance", "picture_f1", "frame", "s_bert", "rouge_l"),
        ),
        Heading("Table 6: ablations of the alignment stage"),
        table(measured, CAPTIONS, (ZERO_SHOT, FULL, NO_GUIDANCE, NO_LDM, NO_CAPTION), (*pictures, "agrees")),
        Heading("Figure 6: guidance scale"),
        plots["guidance"],
        plots["guidance-pictures"],
        table(measured, CAPTIONS, [guidance_system(scale) for scale in scales], (*pictures, "agrees")),
        Heading("Figure 7: number of vokens"),
        plots["vokens"],
        table(measured, CAPTIONS, [vokens_system(count) for count in VOKENS], (*pictures, "agrees")),
    ]


def _context(tasks: Mapping[str, Rows], context: str) -> str:
    rows = tasks.get(final(context))
    if rows is None:
        return ""
    return f"{cell(rows.interval('similarity'))} / {rows.interval('frame').estimate:.3f}"
