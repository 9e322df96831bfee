"""Files and folders that are there whole or not at all."""

import errno
import os
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from minigpt5.utils.files import (
    check_file,
    check_new_folder,
    check_place,
    check_replaceable,
    to_json,
    whole_file,
    whole_folder,
    write_json,
    write_picture,
    write_text,
)


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "new" / "index.json"
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_picture_is_written_as_its_name_says(tmp_path):
    for name, kind in (("fox.png", "PNG"), ("fox.webp", "WEBP"), ("fox", "PNG")):
        write_picture(tmp_path / name, Image.new("RGB", (8, 8), "red"))
        assert Image.open(tmp_path / name).format == kind


def test_what_failed_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "index.json"
    path.write_text("old")
    with pytest.raises(OSError, match="full"), whole_file(path) as temporary:
        temporary.write_text("ne")
        raise OSError("disk full")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_goes_on_naming_the_file_it_names(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "there/file.txt")
    write_text(tmp_path / "link.txt", "ä")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "there/file.txt").read_text(encoding="utf-8") == "ä"


def test_every_library_s_word_for_a_full_disk_is_an_oserror(tmp_path):
    def fail(write):
        # A file of at most 1000 bytes: what is beyond cannot be written.
        child = os.fork()
        if not child:
            import resource
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            try:
                with whole_file(tmp_path / "file") as temporary:
                    write(temporary)
            except OSError as error:
                os._exit(7 if "could not be written" in str(error) or error.errno == errno.EFBIG else 1)
            except BaseException:
                os._exit(2)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    big = torch.zeros(10_000)
    assert fail(lambda path: torch.save(big, path)) == 7
    assert fail(lambda path: save_file({"a": big}, path)) == 7
    assert fail(lambda path: path.write_text("x" * 5000)) == 7
    assert list(tmp_path.iterdir()) == []


def write_model(folder, text):
    with whole_folder(folder, "config.json") as new:
        assert new.name == folder.name and list(new.iterdir()) == []
        (new / "config.json").write_text(text)
        (new / text).mkdir()
        (new / text / "weights").write_text(text)


def test_a_folder_takes_the_place_of_an_earlier_one(tmp_path):
    folder = tmp_path / "runs" / "model"
    write_model(folder, "first")
    write_model(folder, "second")
    assert {path.name for path in folder.iterdir()} == {"config.json", "second"}
    assert (folder / "second/weights").read_text() == "second"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_hidden_in_a_folder_is_kept(tmp_path, monkeypatch, fails):
    folder = tmp_path / "model"
    write_model(folder, "first")
    (folder / ".git").mkdir()
    (folder / ".git/HEAD").write_text("main")
    (folder / ".gitattributes").symlink_to("nowhere")
    if fails:
        rename = Path.rename

        def refuse(source, target):
            if target == folder and source.name == "model":
                raise OSError("no")
            return rename(source, target)

        monkeypatch.setattr(Path, "rename", refuse)
        with pytest.raises(OSError, match="no"):
            write_model(folder, "second")
    else:
        write_model(folder, "second")
    last = "first" if fails else "second"
    assert {path.name for path in folder.iterdir()} == {"config.json", last, ".git", ".gitattributes"}
    assert (folder / ".git/HEAD").read_text() == "main" and (folder / ".gitattributes").is_symlink()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_failed_leaves_the_earlier_one(tmp_path):
    write_model(tmp_path / "model", "first")
    with pytest.raises(OSError, match="no space"), whole_folder(tmp_path / "model", "config.json") as new:
        (new / "config.json").write_text("half")
        raise RuntimeError("no space")
    assert (tmp_path / "model/config.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_no_run_has_written_is_not_replaced(tmp_path):
    (tmp_path / "letters").mkdir()
    check_replaceable(tmp_path / "letters", "config.json")
    (tmp_path / "letters/to-mother.txt").write_text("Dear")
    with pytest.raises(FileExistsError, match="other files and no config"):
        write_model(tmp_path / "letters", "first")
    with pytest.raises(NotADirectoryError):
        check_replaceable(tmp_path / "letters/to-mother.txt", "config.json")
    assert (tmp_path / "letters/to-mother.txt").read_text() == "Dear"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_no_number_that_is_not_finite_gets_into_a_record(tmp_path, number):
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"figures": [1.0, number]})
    assert list(tmp_path.iterdir()) == []
    assert to_json({"é": 1.5}) == '{\n  "é": 1.5\n}\n'


def test_a_path_where_no_file_can_be_is_told_before_the_work(tmp_path, monkeypatch):
    check_file(tmp_path / "new/and/newer.json")
    (tmp_path / "notes").touch()
    check_file(tmp_path / "notes")
    with pytest.raises(IsADirectoryError, match=f"{tmp_path} is a folder, not a file"):
        check_file(tmp_path)
    with pytest.raises(NotADirectoryError, match="notes is a file, not a folder"):
        check_file(tmp_path / "notes/below/results.json")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError, match=f"{tmp_path} is not writable"):
        check_file(tmp_path / "results.json")
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_a_new_folder_is_free_or_empty(tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "new", "new/below"):
        check_new_folder(tmp_path / name)
    (tmp_path / "notes").touch()
    for name in ("notes", "."):
        with pytest.raises(FileExistsError, match="is there already; name a new folder"):
            check_new_folder(tmp_path / name)


def test_links_that_lead_nowhere_and_names_that_are_too_long_are_no_place(tmp_path):
    for name, target in (("loop", "loop"), ("dangling", "nowhere"), ("link", ".")):
        (tmp_path / name).symlink_to(target)
    for name in ("loop", "loop/below", "dangling", "dangling/below"):
        with pytest.raises(FileNotFoundError, match="is a link that leads nowhere"):
            check_place(tmp_path / name)
    check_place(tmp_path / "link/new")
    with pytest.raises(OSError, match="File name too long"):
        check_place(tmp_path / ("a" * 300))
