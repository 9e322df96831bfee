"""Simulated people know the truth: they correct what is wrong, and like what is right."""

from minigpt5.service.feedback import FeedbackStore


def test_another_kind_of_question_is_kept_beside_the_first(run_program, tiny_folder, tmp_path):
    for kind, kept in (("time", 3), ("place and time", 6), ("time", 6)):
        arguments = ("--model", tiny_folder, "--kind", kind, "--count", 3, "--out", tmp_path / "feedback.sqlite")
        run_program("training/miniature/simulate_feedback", *arguments)
        assert len(list(FeedbackStore(tmp_path / "feedback.sqlite"))) == kept


def test_replies_are_corrected_or_liked(run_program, tiny_folder, tmp_path, monkeypatch, capsys):
    said = iter(("It is day.", "It is night."))
    monkeypatch.setattr(
        "minigpt5.storyworld.examine.ask",
        lambda pipe, questions, image_mode: ([next(said)] * len(questions), [None] * len(questions)),
    )
    opinions = []
    for name in ("day", "night"):
        arguments = ("--model", tiny_folder, "--kind", "time", "--count", 6, "--out", tmp_path / name)
        run_program("training/miniature/simulate_feedback", *arguments)
        opinions.append({row.id: (row.rating, row.correction) for row in FeedbackStore(tmp_path / name)})
    assert len(opinions[0]) == 6
    # Either reply is right where the other is wrong, and is what the other should have been.
    for one, other in zip(*(each.values() for each in opinions), strict=True):
        assert {one[0], other[0]} == {"up", "down"}
        assert (one[1], other[1]) in ((None, ["It is day."]), (["It is night."], None))
    assert "thumbs up" in capsys.readouterr().out
