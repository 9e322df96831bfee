"""Data sets that a model makes: each row once, the same in any batch and after any stop."""

import hashlib
import io
import json

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from minigpt5.data.generation import GeneratedFolder, PartMaker, Row, read_rows
from minigpt5.output import MiniGPT5PipelineOutput

ROWS = [Row(str(number), f"Say {number}.") for number in range(7)]


class Parrot:
    """Replies with each prompt, and a picture of as many pixels as it was shown; refuses what is loud."""

    def __init__(self):
        self.batches = []

    def __call__(self, prompts, images, *, generator, **options):
        from torch import randint

        self.batches.append(len(prompts))
        if any(prompt.isupper() for prompt in prompts):
            raise ValueError("too loud")
        drawn = [str(randint(10**6, (), generator=own).item()) for own in generator]
        shown = [Image.new("RGB", (own[0].width if own else 1, 2), "red") for own in images]
        segments = [[prompt, picture, number] for prompt, picture, number in zip(prompts, shown, drawn, strict=True)]
        return MiniGPT5PipelineOutput(text=[], images=[], segments=segments)


@pytest.fixture
def maker():
    def make(folder, parrot, batch_size=2):
        return PartMaker(lambda: parrot, folder, batch_size, 3, {})

    return make


def png(width):
    content = io.BytesIO()
    Image.new("RGB", (width, 3)).save(content, "PNG")
    return content.getvalue()


def replies(root):
    """Texts of each row's reply, of all parts."""
    rows = load_dataset("parquet", data_files=f"{root}/part-*.parquet", split="train")
    return {row["id"]: [part["text"] for part in row["reply"]] for row in rows}


def test_lines_are_rows_with_the_names_that_they_have(tmp_path):
    file = tmp_path / "rows.jsonl"
    lines = [{"prompt": "One."}, {"prompt": "Two.", "id": "b", "images": ["a/fox.png", "/fox.png", "s3://b/fox.png"]}]
    file.write_text("\n".join(map(json.dumps, [*lines, {"prompt": "Three.", "id": 7, "images": None}])))
    shown = (f"{tmp_path}/a/fox.png", "/fox.png", "s3://b/fox.png")
    assert read_rows(str(file)) == [Row("1", "One."), Row("b", "Two.", shown), Row("7", "Three.")]


def test_pictures_lie_beside_a_file_at_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"prompt": "One.", "images": ["fox.png"]}))
    assert read_rows("~/rows.jsonl") == [Row("1", "One.", (f"{tmp_path}/fox.png",))]


def test_parquet_of_an_address_has_pictures_within_or_beside(tmp_path):
    table = pa.table(
        {"prompt": ["One.", "Two."], "images": [[{"bytes": b"png", "path": "x"}], [{"bytes": None, "path": "a.png"}]]}
    )
    with fsspec.open("memory://prompts/rows.parquet", "wb") as file:
        pq.write_table(table, file)
    rows = read_rows("memory://prompts/rows.parquet")
    assert rows == [Row("1", "One.", (b"png",)), Row("2", "Two.", ("memory://prompts/a.png",))]


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (['{"prompt": "One."}', "{"], "line 2, column 2: not JSON"),
        (['{"text": "One."}'], "line 1: no prompt; the fields are text"),
        (['{"prompt": " "}'], "line 1: the prompt is empty"),
        (['{"prompt": "One.", "id": 1.5}'], "line 1: id is 1.5, expected a string or a whole number"),
        (['{"prompt": "One.", "id": 2}', '{"prompt": "Two."}'], 'line 2: the id "2" is also that of'),
        (['{"prompt": "One.", "images": "a.png"}'], 'line 1: images is "a.png", expected a list'),
        (['{"prompt": "One.", "images": [3]}'], "line 1: a picture is 3, expected a path"),
        ([], "has no rows"),
    ],
)
def test_what_is_no_row_is_told_by_its_place(lines, told, tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=f"^{tmp_path}/rows.jsonl") as error:
        read_rows(str(tmp_path / "rows.jsonl"))
    assert told in str(error.value)


@pytest.mark.parametrize("root", ["memory://made", "{tmp}/made"])
def test_a_part_holds_texts_and_pictures_in_order(root, maker, tmp_path):
    (tmp_path / "fox.png").write_bytes(png(5))
    folder = GeneratedFolder(root.format(tmp=tmp_path))
    folder.claim({"seed": 3})
    rows = [Row("a", "See.", (str(tmp_path / "fox.png"),)), Row("b", "Show.", (png(9),))]
    assert maker(folder, Parrot())(rows) == (2, [])
    (path,) = folder.files.glob(f"{folder.root}/part-*.parquet")
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/part-1.parquet").write_bytes(folder.files.cat_file(path))
    read = load_dataset("parquet", data_dir=str(tmp_path / "copy"), split="train").to_list()
    assert [row["images"] for row in read] == [
        [str(tmp_path / "fox.png")],
        [f"sha256:{hashlib.sha256(png(9)).hexdigest()}"],
    ]
    assert [row["reply"][0] for row in read] == [{"text": "See.", "image": None}, {"text": "Show.", "image": None}]
    kept = load_dataset("parquet", data_dir=str(tmp_path / "copy"), split="train")
    assert [row["reply"][1]["image"].size for row in kept] == [(5, 2), (9, 2)]


def test_after_a_stop_only_what_is_missing_is_made_and_the_same(maker, tmp_path):
    whole, parts = GeneratedFolder(str(tmp_path / "whole")), GeneratedFolder(str(tmp_path / "parts"))
    maker(whole, Parrot(), 7)(ROWS)
    maker(parts, Parrot())(ROWS[2:4])
    # What a kill leaves of a part that was being written.
    (tmp_path / "parts/.part-0.parquet.1.tmp").write_bytes(b"PAR1")
    missing = parts.missing(ROWS)
    assert missing == [*ROWS[:2], *ROWS[4:]]
    parrot = Parrot()
    assert maker(parts, parrot, 3)(missing) == (5, []) and parrot.batches == [3, 2]
    assert parts.missing(ROWS) == []
    # A part that is made again, as an actor died before it said so, is the same file.
    maker(parts, Parrot(), 1)(missing)
    assert len(list((tmp_path / "parts").glob("part-*.parquet"))) == 2
    assert replies(tmp_path / "parts") == replies(tmp_path / "whole")
    assert len({texts[2] for texts in replies(tmp_path / "whole").values()}) == len(ROWS)


def test_a_row_whose_embedded_picture_changed_is_not_taken_for_done(maker, tmp_path):
    folder = GeneratedFolder(str(tmp_path / "made"))
    maker(folder, Parrot())([Row("0", "Describe this.", (png(3),))])
    assert folder.missing([Row("0", "Describe this.", (png(3),))]) == []
    with pytest.raises(ValueError, match="a reply of row 0 to other pictures"):
        folder.missing([Row("0", "Describe this.", (png(5),))])


def test_rows_whose_pictures_changed_places_are_not_taken_for_done(maker, tmp_path):
    for name, width in (("a", 3), ("b", 5)):
        (tmp_path / f"{name}.png").write_bytes(png(width))
    shown = [(str(tmp_path / f"{name}.png"),) for name in "ab"]
    folder = GeneratedFolder(str(tmp_path / "made"))
    rows = [Row(str(number), "Describe this.", paths) for number, paths in enumerate(shown)]
    maker(folder, Parrot())(rows)
    assert folder.missing(rows) == []
    with pytest.raises(ValueError, match="a reply of row 0 to other pictures"):
        folder.missing([Row(str(number), "Describe this.", paths) for number, paths in enumerate(reversed(shown))])


@pytest.mark.parametrize("name", ["made[1]", "ma*e", "m?de", "m{a,b}de"])
def test_a_folder_s_name_is_no_pattern(name, maker, tmp_path):
    other = GeneratedFolder(str(tmp_path / "made"))
    maker(other, Parrot())(ROWS[:4])
    folder = GeneratedFolder(str(tmp_path / name))
    assert folder.missing(ROWS) == ROWS
    maker(folder, Parrot())(ROWS[2:5])
    assert folder.missing(ROWS) == [*ROWS[:2], *ROWS[5:]]


def test_rows_that_cannot_be_asked_are_told_and_stay_missing(maker, tmp_path):
    folder = GeneratedFolder(str(tmp_path))
    rows = [Row("a", "See.", ("/nowhere.png",)), Row("b", "LOUD"), Row("c", "Calm."), Row("d", "See.", (b"no",))]
    count, problems = maker(folder, Parrot(), 4)(rows)
    assert count == 4 and sorted(problems) == [
        "row a: /nowhere.png: no such file",
        "row b: too loud",
        "row d: a picture: not a picture that can be read (PNG, JPEG, WebP, …)",
    ]
    assert [row.id for row in folder.missing(rows)] == ["a", "b", "d"]


def test_a_folder_of_other_settings_rows_or_files_is_refused(maker, tmp_path):
    folder = GeneratedFolder(str(tmp_path / "made"))
    folder.claim({"seed": 3})
    folder.claim({"seed": 3})
    with pytest.raises(ValueError, match="holds replies of seed 3, not 4; name another folder"):
        folder.claim({"seed": 4})
    maker(folder, Parrot())(ROWS)
    with pytest.raises(ValueError, match="holds a reply of row 0 to another prompt"):
        folder.missing([Row("0", "Another.")])
    with pytest.raises(ValueError, match="holds a reply of row 0 to other pictures, so the rows have changed"):
        folder.missing([Row("0", "Say 0.", ("/fox.png",))])
    with pytest.raises(FileExistsError, match=r"holds other files and no settings.json"):
        GeneratedFolder(str(tmp_path)).claim({})


@pytest.fixture
def given(tiny_folder, tmp_path):
    lines = [{"prompt": f"A fox number {number}."} for number in range(5)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return "--rows", tmp_path / "rows.jsonl", "--model", tiny_folder, "--image-mode", "always", "--out"


def test_the_program_says_what_it_made_and_goes_on(given, tmp_path, run_program, refused, capsys):
    run_program("pipelines/generate_dataset", *given, tmp_path / "out", "--part-rows", 2, "--batch-size", 2)
    assert capsys.readouterr().out.startswith("5 rows in ")
    made = replies(tmp_path / "out")
    parts = sorted((tmp_path / "out").glob("part-*.parquet"))
    assert len(made) == 5 and len(parts) == 3
    parts[0].unlink()
    lost = made.keys() - replies(tmp_path / "out").keys()
    run_program("pipelines/generate_dataset", *given, tmp_path / "out", "--batch-size", 1)
    assert capsys.readouterr().out.startswith(f"{len(lost)} rows in ")
    assert replies(tmp_path / "out") == made
    capsys.readouterr()
    again = refused("pipelines/generate_dataset", *given, tmp_path / "out", "--seed", 1)
    assert "holds replies of seed 0, not 1" in again
    assert "no/such.jsonl" in refused("pipelines/generate_dataset", "--rows", "no/such.jsonl", "--out", tmp_path / "no")
    assert "cannot open nofs://x" in refused("pipelines/generate_dataset", *given, "nofs://x")
    assert not (tmp_path / "no").exists()
