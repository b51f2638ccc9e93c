"""Files and folders appear whole or not at all, and nothing of others is overwritten."""

from __future__ import annotations

import stat

import pytest

from jaxcompress import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_what_was_there_survives_a_failed_write(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")

    def fail_halfway():
        with files.atomic_write(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"


def test_the_file_is_not_there_before_it_is_whole(tmp_path):
    path = tmp_path / "deep" / "page.html"
    with files.atomic_write(path) as temporary:
        assert (temporary.parent, temporary.suffix) == (path.parent, ".html")
        temporary.write_text("whole")
        assert not path.exists()
    assert names(path.parent) == ["page.html"]
    assert path.read_text() == "whole"


def test_bodies_that_write_nothing_are_an_error_and_leave_nothing(tmp_path):
    with pytest.raises(FileNotFoundError), files.atomic_write(tmp_path / "a"):
        pass
    assert names(tmp_path) == []


def test_the_mode_is_that_of_any_new_file(tmp_path):
    (tmp_path / "usual").write_text("")
    files.write_text(tmp_path / "ours", "é")
    assert (tmp_path / "ours").read_bytes() == "é".encode()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "ours")]
    assert modes[0] == modes[1]
    with files.atomic_directory(tmp_path / "folder") as temporary:
        (tmp_path / "other").mkdir()
        assert temporary.stat().st_mode == (tmp_path / "other").stat().st_mode


def test_existing_files_are_refused(tmp_path):
    path = files.write_text(tmp_path / "thesis.json", "mine")
    for wrong, message in (
        (path, r"a new file, got one that is there\. pass overwrite"),
        (path / "a.json", "a directory that can be written to"),
        (tmp_path, "a file, got a directory"),
    ):
        with pytest.raises(ValueError, match=message):
            files.refuse_existing(wrong)
    assert files.refuse_existing(path, overwrite=True) == path and path.read_text() == "mine"
    assert files.refuse_existing(tmp_path / "new" / "a.json").parent.exists() is False


def test_nonempty_directories_are_refused(tmp_path):
    assert files.refuse_nonempty(tmp_path / "new") == tmp_path / "new"
    assert files.refuse_nonempty(tmp_path) == tmp_path
    (tmp_path / "a").write_text("")
    with pytest.raises(ValueError, match="new or empty directory, got files such as a.*overwrite"):
        files.refuse_nonempty(tmp_path)
    assert files.refuse_nonempty(tmp_path, overwrite=True) == tmp_path
    with pytest.raises(ValueError, match=r"earlier result with a run\.json, got files such as a"):
        files.refuse_nonempty(tmp_path, overwrite=True, marker="run.json")
    with pytest.raises(ValueError, match="expected a directory, got a file"):
        files.refuse_nonempty(tmp_path / "a", overwrite=True)


def test_several_markers_must_all_be_there(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    both = ("config.json", "model.safetensors")
    with pytest.raises(ValueError, match=r"with a config\.json and a model\.safetensors, got"):
        files.refuse_nonempty(tmp_path, overwrite=True, marker=both)
    (tmp_path / "model.safetensors").write_text("")
    assert files.refuse_nonempty(tmp_path, overwrite=True, marker=both) == tmp_path


@pytest.mark.parametrize("place", ["/proc/nope/x", "file/x", "file/deep/x"])
def test_what_cannot_be_made_is_refused_at_the_door(tmp_path, place):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="expected a directory that can be written to, got /"):
        files.refuse_nonempty(tmp_path / place)
    assert names(tmp_path) == ["file"]


def test_fresh_directories_lose_only_an_earlier_result(tmp_path):
    (tmp_path / "precious").write_text("")
    folder = tmp_path / "run"
    for name in ("run.json", "deep/er/x", "y"):
        files.write_text(folder / name, "")
    (folder / "link").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ValueError, match="new or empty"):
        files.fresh_directory(folder, marker="run.json")
    assert "y" in names(folder)
    assert names(files.fresh_directory(folder, True, marker="run.json")) == []
    # The link is gone, and what it pointed to is not.
    assert names(tmp_path) == ["precious", "run"]


def test_directories_appear_whole(tmp_path):
    folder = tmp_path / "model"
    with files.atomic_directory(folder) as temporary:
        (temporary / "config.json").write_text("1")
        assert not folder.exists()
    assert names(folder) == ["config.json"]
    with pytest.raises(ValueError, match="new or empty"), files.atomic_directory(folder):
        pass
    with files.atomic_directory(folder, overwrite=True) as temporary:
        (temporary / "other.json").write_text("2")
    assert names(folder) == ["other.json"]
    assert names(tmp_path) == ["model"]


def test_a_failed_directory_leaves_the_old_one(tmp_path):
    folder = tmp_path / "model"
    files.write_text(folder / "config.json", "old")

    def fail_halfway():
        with files.atomic_directory(folder, overwrite=True) as temporary:
            (temporary / "config.json").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_halfway()
    assert names(tmp_path) == ["model"]
    assert (folder / "config.json").read_text() == "old"


def test_an_interrupt_between_the_renames_brings_the_old_one_back(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    files.write_text(folder / "config.json", "old")
    replace, calls = type(folder).replace, []

    def interrupted(self, target):
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return replace(self, target)

    def save():
        with files.atomic_directory(folder, overwrite=True):
            monkeypatch.setattr(type(folder), "replace", interrupted)

    with pytest.raises(KeyboardInterrupt):
        save()
    assert names(tmp_path) == ["model"]
    assert (folder / "config.json").read_text() == "old"
