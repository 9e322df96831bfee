"""What people think of replies, and whether a model is better: `minigpt5 feedback` and `minigpt5 compare`."""

from __future__ import annotations

import argparse
from pathlib import Path

from minigpt5.commands.arguments import as_program_error, feedback_errors, free_file, model_name, say, whole_number
from minigpt5.utils.files import write_json
from minigpt5.utils.imports import collector_paused
from minigpt5.utils.logs import quiet_libraries


def add_feedback(commands) -> None:
    """`minigpt5 feedback`."""
    feedback = commands.add_parser(
        "feedback", help="make data of what people think of replies", description="What people think of replies."
    )
    verbs = feedback.add_subparsers(metavar="VERB", required=True, help="see minigpt5 feedback VERB --help")
    exporting = verbs.add_parser(
        "export",
        help="write data to train on",
        description="Write corrections and thumbs up as conversations in the layout chat, and preferences beside them. "
        "Prints how many there are.",
        epilog="example: minigpt5 feedback export feedback.sqlite --out data/chat/",
    )
    exporting.set_defaults(run=run_export_feedback)
    exporting.add_argument("store", metavar="STORE", type=Path, help="file of feedback, as the Studio makes it")
    exporting.add_argument(
        "--out", type=Path, metavar="DIR", required=True, help="where to write; an earlier export there is replaced"
    )


def run_export_feedback(arguments: argparse.Namespace) -> None:
    """Export, and say what there is."""
    from minigpt5.service.export import export_feedback

    with feedback_errors(arguments.store):
        counts = export_feedback(arguments.store, arguments.out)
    for kind, splits in counts.items():
        say(f"{kind}: " + ", ".join(f"{count} {split}" for split, count in splits.items()))
    say(arguments.out)


def add_compare(commands) -> None:
    """`minigpt5 compare`."""
    comparing = commands.add_parser(
        "compare",
        help="say whether one model should replace another",
        description="Ask two models the same and print what both reach, what the second gains with its interval, and "
        "a verdict: replace the first, keep it, or undecided. Asked are the conversations of a folder that are kept to "
        "judge by, or StoryWorld's interview.",
        epilog="example: minigpt5 compare storyworld-mini runs/feedback/taught/model --data runs/feedback/data/chat",
    )
    comparing.set_defaults(run=run_compare)
    for name in ("a", "b"):
        told = "shipped model, pipeline's folder or hub repository"
        comparing.add_argument(name, metavar=name.upper(), type=model_name, help=told)
    comparing.add_argument(
        "--data", type=Path, metavar="DIR", help="folder in the layout chat (default: StoryWorld's interview)"
    )
    comparing.add_argument(
        "--count",
        type=whole_number(10),
        metavar="N",
        help="items to ask (default: all of DIR; in the interview 50 a figure)",
    )
    comparing.add_argument("--out", type=free_file, metavar="FILE", help="JSON file for the figures")


def run_compare(arguments: argparse.Namespace) -> None:
    """Ask both models, and tell what follows."""
    with collector_paused():
        from minigpt5.evaluation.compare import chat_items, chat_marks, compare
        from minigpt5.loading import identity, open_model
        from minigpt5.storyworld.interview import answerer, interview

    quiet_libraries()
    with as_program_error((OSError, ValueError)):
        items = None if arguments.data is None else chat_items(arguments.data, arguments.count)
        marks = []
        for name in (arguments.a, arguments.b):
            pipe = open_model(name)
            count = arguments.count or 50
            marks.append(interview(answerer(pipe), count) if items is None else chat_marks(pipe, items))
        comparison = compare(*marks)
        if arguments.out:
            asked = {
                "a": identity(arguments.a),
                "b": identity(arguments.b),
                "data": arguments.data and str(arguments.data),
            }
            write_json(arguments.out, asked | comparison.record())
    width = max(map(len, comparison.figures))
    for name, one in comparison.figures.items():
        gain, low, high = one.difference
        say(f"{name:{width}}  A {one.a:.3f}  B {one.b:.3f}  B - A {gain:+.3f} [{low:+.3f}, {high:+.3f}]")
    say(comparison.verdict)
