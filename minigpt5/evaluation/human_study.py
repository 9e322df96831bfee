"""Blind side-by-side judging of two systems by people: the page they judge on, and what their answers come to.

The page knows neither the systems' names nor who stands where; both are in the key, which stays with whoever runs the
study. Sides and order are drawn by a seed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from minigpt5.evaluation.items import Item
from minigpt5.evaluation.replies import Reply
from minigpt5.metrics.intervals import Interval, wilson_interval
from minigpt5.utils.html import STYLE
from minigpt5.utils.images import open_image
from minigpt5.utils.json_files import field

# What people are asked (arXiv 2310.02239, section 4.2 and table 4).
QUESTIONS = {
    "language_continuity": ("Language continuity", "Whose text goes on better from what was before?"),
    "image_quality": ("Image quality", "Whose picture is clearer and fits better?"),
    "multimodal_coherence": ("Multimodal coherence", "Whose text and picture make better sense together?"),
}
CHOICES = ("left", "same", "right")
# Larger pictures are put into the page as JPEG.
_SMALL = 128


@dataclass(frozen=True)
class Comparison:
    """An item and the replies of two systems, whose texts are strings and whose pictures are paths."""

    item: Item
    left: tuple[str | Path, ...]
    right: tuple[str | Path, ...]


def compare(
    items: Sequence[Item],
    first: Mapping[str, Reply],
    second: Mapping[str, Reply],
    names: tuple[str, str],
    seed: int = 0,
) -> tuple[list[Comparison], dict[str, Any]]:
    """Comparisons in an order, and with sides, drawn by the seed.

    Args:
        first, second: each system's replies by the items' ids.
        names: of the two systems.

    Returns:
        The comparisons, and the key: the study's id, the names, what tells these replies from others, and who stands on
        the left of each item.

    Raises:
        ValueError: if both have one name, by which answers could not be counted.
    """
    if names[0] == names[1]:
        raise ValueError(f"both systems are called {names[0]!r}; name them apart")
    rng = random.Random(f"human study/{seed}")
    order = rng.sample(list(items), len(items))
    # As many on either side, so that a judge who always takes one side favours nobody.
    swapped = rng.sample([i % 2 == 1 for i in range(len(order))], len(order))
    comparisons, left, shown = [], {}, hashlib.sha256()
    for item, swap in zip(order, swapped, strict=True):
        sides = [first[item.id].segments, second[item.id].segments]
        for part in (*sides[0], *sides[1]):
            shown.update(part.encode() if isinstance(part, str) else part.read_bytes())
        left[item.id] = names[swap]
        comparisons.append(Comparison(item, *(sides[::-1] if swap else sides)))
    key = {"names": list(names), "seed": seed, "replies": shown.hexdigest()[:12], "left": left}
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
    return comparisons, {"study": digest, **key}


def study_html(study: str, comparisons: Sequence[Comparison]) -> str:
    """The page: self-contained, one comparison at a time, answers kept in the browser and saved as a JSON file."""
    pictures: dict[str, str] = {}
    spoken = any(isinstance(part, str) for both in comparisons for part in (*both.left, *both.right))
    questions = {name: words for name, words in QUESTIONS.items() if spoken or name == "image_quality"}
    cards = "".join(_comparison_html(number, both, questions, pictures) for number, both in enumerate(comparisons))
    data = json.dumps({"study": study, "pictures": pictures, "questions": list(questions)}).replace("</", "<\\/")
    return (
        '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Which is better?</title>'
        f"<style>{STYLE}{_STYLE}</style></head><body><main>{_HEADER}{cards}{_CLOSING}</main>"
        f'<script type="application/json" id="data">{data}</script><script>{_SCRIPT}</script></body></html>\n'
    )


def _comparison_html(
    number: int, both: Comparison, questions: Mapping[str, tuple[str, str]], pictures: dict[str, str]
) -> str:
    steps = "".join(
        f"<figure>{_picture(Path(path), pictures) if path else ''}"
        f"{f'<figcaption>{escape(text)}</figcaption>' if text else ''}</figure>"
        for text, path in both.item.context
    )
    asked_for = f'<p class="sentence">{escape(both.item.sentence)}</p>' if both.item.sentence else ""
    before = f'<div class="before">{steps}</div>{asked_for}'
    sides = "".join(
        f'<article><span class="number">{name}</span>{_segments(segments, pictures)}</article>'
        for name, segments in (("Left", both.left), ("Right", both.right))
    )
    asked = []
    for name, (title, question) in questions.items():
        choices = "".join(
            f'<label><input type="radio" name="{name}-{number}" value="{choice}"><span>{words}</span></label>'
            for choice, words in zip(CHOICES, ("Left", "About the same", "Right"), strict=True)
        )
        asked.append(
            f'<fieldset data-question="{name}"><legend>{title}<small>{question}</small></legend>'
            f'<div class="choices">{choices}</div></fieldset>'
        )
    return (
        f'<section class="comparison" data-item="{escape(both.item.id)}" hidden>{before}'
        f'<div class="sides">{sides}</div>{"".join(asked)}</section>'
    )


def _segments(segments: Sequence[str | Path], pictures: dict[str, str]) -> str:
    """Texts and pictures in order."""
    parts = [f"<p>{escape(part)}</p>" if isinstance(part, str) else _picture(part, pictures) for part in segments]
    return "".join(parts) or "<p class=nothing>(no reply)</p>"


def _picture(path: Path, pictures: dict[str, str]) -> str:
    """A picture by the name of its content, which stands in the page once."""
    image, buffer = open_image(path), io.BytesIO()
    small = max(image.size) <= _SMALL
    image.save(buffer, "PNG") if small else image.save(buffer, "JPEG", quality=92)
    content = buffer.getvalue()
    name = hashlib.sha256(content).hexdigest()[:16]
    pictures[name] = f"data:image/{'png' if small else 'jpeg'};base64,{base64.b64encode(content).decode('ascii')}"
    return f'<img data-picture="{name}" alt="picture">'


@dataclass(frozen=True)
class Tally:
    """The answers to one question: how often each system won, and how often neither did."""

    question: str
    first: Interval
    same: Interval
    second: Interval
    count: int


def tally(key: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> list[Tally]:
    """Shares of all answers to each question, with Wilson's 95 % intervals.

    Args:
        key: of the study.
        answers: what judges saved.

    Raises:
        ValueError: for answers of another study, to an unknown item or of an unknown kind, or given twice by a judge.
    """
    names, left_sides = field(key, "names", list, "the key"), field(key, "left", dict, "the key")
    study = field(key, "study", str, "the key")
    given: dict[str, list] = {name: [] for name in QUESTIONS}
    seen = set()
    for sheet in answers:
        if sheet.get("study") != study:
            raise ValueError(f"answers of the study {sheet.get('study')!r} do not go with the key of {study!r}")
        judge = str(sheet.get("judge", ""))
        for answer in field(sheet, "answers", list, f"the answers of {judge!r}"):
            item = field(answer, "item", str, f"the answers of {judge!r}")
            if item not in left_sides:
                raise ValueError(f"the judge {judge!r} answers to {item!r}, which is no item of the study")
            if (judge, item) in seen:
                raise ValueError(f"the judge {judge!r} answers to {item} twice; is a file given twice?")
            seen.add((judge, item))
            for question in answer.keys() & given.keys():
                choice = answer[question]
                if choice not in CHOICES:
                    raise ValueError(f"the answer to {item} is one of {', '.join(CHOICES)}, got {choice!r}")
                left = left_sides[item]
                right = names[1] if left == names[0] else names[0]
                given[question].append({"left": left, "right": right}.get(choice))

    def share(won: list[str | None], name: str | None) -> Interval:
        return wilson_interval(won.count(name), len(won))

    return [
        Tally(question, share(won, names[0]), share(won, None), share(won, names[1]), len(won))
        for question, won in given.items()
        if won
    ]


def tally_markdown(key: Mapping[str, Any], tallies: Sequence[Tally]) -> str:
    """A table of shares in percent.

    Raises:
        ValueError: if there are no answers.
    """
    if not tallies:
        raise ValueError("there are no answers to count")
    names = key["names"]
    rows = [["", f"{names[0]} better", "about the same", f"{names[1]} better", "answers"], ["---"] * 5]
    for entry in tallies:
        shares = [
            f"{100 * share:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
            for share, low, high in (entry.first, entry.same, entry.second)
        ]
        rows.append([QUESTIONS[entry.question][0], *shares, str(entry.count)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"{table}\n\nIn brackets: Wilson's 95 % intervals, each answer taken as independent.\n"


_STYLE = """
main { max-width: 66rem; padding-top: 2rem; }
header { max-width: none; margin-bottom: 1.5rem; }
header h1 { font-size: 1.7rem; }
header p { color: var(--soft); font-size: 1.05rem; margin-top: .4rem; }
.progress { height: 6px; border-radius: 3px; background: var(--line); margin: 1.2rem 0 0; overflow: hidden; }
.progress div { height: 100%; width: 0; background: var(--accent); transition: width .2s; }
.before { display: flex; flex-wrap: wrap; justify-content: center; gap: 1rem 1.4rem; }
figure { width: 9.5rem; margin: 0 0 1.4rem; }
figure img { display: block; width: 100%; border-radius: 10px; }
figcaption { margin-top: .5rem; font-size: 1rem; line-height: 1.35; text-align: center; text-wrap: balance; }
.sentence { text-align: center; font-size: 1.3rem; margin: 0 1rem 1.4rem; text-wrap: balance; }
.sides { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; margin-bottom: 1.2rem; }
article { background: var(--card); border: 1px solid var(--line); border-radius: 20px; box-shadow: var(--shadow);
  padding: 1.1rem 1.4rem 1.4rem; text-align: center; overflow-wrap: anywhere; }
article p { font-size: 1.3rem; line-height: 1.4; margin: .2rem 0 .9rem; text-wrap: balance; }
article img { width: 20rem; max-width: 100%; border-radius: 12px; }
.nothing { color: var(--soft); font-style: italic; }
fieldset { border: 0; margin: 0 0 .9rem; padding: 0 .5rem; display: flex; align-items: center;
  justify-content: space-between; gap: 1rem; flex-wrap: wrap; }
legend { float: left; padding: 0; font-weight: 600; }
legend small { display: block; font-weight: 400; font-size: 1rem; color: var(--soft); }
.choices { display: flex; background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  overflow: hidden; }
.choices label { cursor: pointer; }
.choices label + label { border-left: 1px solid var(--line); }
.choices input { position: absolute; opacity: 0; }
.choices span { display: block; padding: .45rem 1.2rem; font-size: 1.05rem; }
.choices input:checked + span { background: var(--accent); color: var(--card); }
.choices input:focus-visible + span { outline: 2px solid var(--accent); outline-offset: -4px; }
nav { display: flex; justify-content: space-between; margin-top: 1.4rem; padding: 0 .5rem; }
button { font: inherit; font-size: 1.1rem; padding: .5rem 1.6rem; border-radius: 12px; cursor: pointer;
  border: 1px solid var(--accent); background: var(--accent); color: var(--card); }
button.quiet { background: none; color: var(--ink); border-color: var(--line); }
button:disabled { opacity: .35; cursor: default; }
#end { text-align: center; padding-top: 2rem; }
#end h1 { font-size: 1.7rem; margin-bottom: .6rem; }
#end p { margin: 0 auto 1.2rem; max-width: 34rem; }
#end input { font: inherit; padding: .45rem .8rem; border-radius: 12px; border: 1px solid var(--line);
  color: var(--ink); background: var(--card); margin-right: .6rem; }
[hidden] { display: none !important; }
@media (max-width: 44rem) { .sides { gap: .8rem; } article { padding: .8rem; } article p { font-size: 1.05rem; }
  figure { width: 6.5rem; } }
"""

_HEADER = """<header><small>Which is better?</small><h1>Two ways to go on</h1>
<p>Compare the two replies. There is no right answer; take what seems better to you.</p>
<div class="progress"><div id="bar"></div></div></header>"""

_CLOSING = """<section id="end" hidden><h1>Thank you</h1>
<p>Save your answers as a file and hand it to whoever asked you. Until then they stay in this browser only.</p>
<input id="judge" placeholder="your name or initials" aria-label="your name or initials">
<button id="save">Save answers</button>
</section>
<nav><button class="quiet" id="back">Back</button><span id="place" class="number"></span>
<button id="next">Next</button></nav>"""

_SCRIPT = """
const data = JSON.parse(document.getElementById('data').textContent);
const find = id => document.getElementById(id);
const sections = [...document.querySelectorAll('.comparison')];
const store = 'human-study-' + data.study;
let kept = {at: 0, judge: '', answers: {}};
try { kept = JSON.parse(localStorage.getItem(store)) || kept; } catch (error) {}
// Two judges may have the same initials, or give none.
if (!kept.id) kept.id = [...crypto.getRandomValues(new Uint16Array(2))].map(n => n.toString(36)).join('');
const judge = () => (kept.judge.trim() || 'anonymous') + ' ' + kept.id;
const keep = () => { try { localStorage.setItem(store, JSON.stringify(kept)); } catch (error) {} };
const answersOf = section => kept.answers[section.dataset.item] || {};
const complete = section => data.questions.every(question => answersOf(section)[question]);

function show(at) {
  kept.at = Math.max(0, Math.min(at, sections.length));
  sections.forEach((section, i) => section.hidden = i !== kept.at);
  const ended = kept.at === sections.length;
  find('end').hidden = !ended;
  find('next').hidden = ended;
  find('back').disabled = kept.at === 0;
  find('place').textContent = ended ? '' : (kept.at + 1) + ' of ' + sections.length;
  find('bar').style.width = 100 * sections.filter(complete).length / sections.length + '%';
  if (!ended) find('next').disabled = !complete(sections[kept.at]);
  keep();
}

for (const image of document.querySelectorAll('img[data-picture]')) image.src = data.pictures[image.dataset.picture];
for (const section of sections) for (const field of section.querySelectorAll('fieldset'))
  for (const input of field.querySelectorAll('input')) {
    const question = field.dataset.question;
    input.checked = answersOf(section)[question] === input.value;
    input.addEventListener('change', () => {
      kept.answers[section.dataset.item] = {...answersOf(section), [question]: input.value};
      show(kept.at);
    });
  }
find('next').addEventListener('click', () => { show(kept.at + 1); scrollTo(0, 0); });
find('back').addEventListener('click', () => { show(kept.at - 1); scrollTo(0, 0); });
find('judge').value = kept.judge;
find('judge').addEventListener('input', event => { kept.judge = event.target.value; keep(); });
find('save').addEventListener('click', () => {
  const answers = sections.filter(complete).map(section => ({item: section.dataset.item, ...answersOf(section)}));
  const sheet = JSON.stringify({study: data.study, judge: judge(), answers}, null, 2);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([sheet], {type: 'application/json'}));
  link.download = 'answers-' + judge().replace(/\\W+/g, '-').replace(/^-/, '') + '.json';
  link.click();
});
show(kept.at);
"""
