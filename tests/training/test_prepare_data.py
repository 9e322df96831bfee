"""The program that checks a download, as a user runs it."""

import json

from minigpt5.data.readers import open_dataset
from minigpt5.storyworld.export import export_vist


def test_an_export_with_spoilt_pictures_is_indexed(tmp_path, run_program, capsys):
    source, out = tmp_path / "vist", tmp_path / "index"
    export_vist(source, "train", 6, 16)
    gone, short, page = (source / f"train_images/{int(name):09d}.png" for name in ("00", "12", "34"))
    gone.unlink()
    short.write_bytes(short.read_bytes()[:-40])
    page.write_text("<html>404 not found</html>")

    run_program("training/prepare_data", "vist", source, out, "--workers", 1)
    first = capsys.readouterr().out
    assert first.splitlines()[1].split() == ["train", "6", "3", "0", "3", "30", "27", "1", "2"]
    assert json.loads((out / "report.json").read_text())["splits"]["train"]["pictures"]["good"] == 27
    assert len(open_dataset("vist", out, "train")) == 3
    run_program("training/prepare_data", "vist", source, out, "--workers", 1)
    assert capsys.readouterr().out == first


def test_errors_are_a_line(tmp_path, refused):
    assert "no mmdialog download" in refused("training/prepare_data", "mmdialog", tmp_path, tmp_path / "index")

    source = tmp_path / "vist"
    export_vist(source, "train", 2, 16)
    for picture in source.rglob("*.png"):
        picture.unlink()
    given = ("vist", source, tmp_path / "index", "--workers", 1)
    assert "no row of" in refused("training/prepare_data", *given)
    report = json.loads((tmp_path / "index/report.json").read_text())
    assert report["splits"]["train"]["pictures"]["missing"] == 10
