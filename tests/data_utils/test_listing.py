"""What is data in a folder and what was left there, and that the order does not depend on the system."""

from pathlib import Path

import pytest

from data_utils.listing import files, folders, is_file_name, is_left_behind


@pytest.mark.parametrize(
    "name",
    [
        ".DS_Store", "._a.png", ".ipynb_checkpoints", ".git", "__MACOSX", "@eaDir", "#recycle", "Thumbs.db",
        "thumbs.DB", "Desktop.ini", "$RECYCLE.BIN", "System Volume Information", "lost+found", "@Recycle",
        "__pycache__", "@tmp", "@__thumb", "@Recently-Snapshot", "#snapshot", "#1", "@home",
    ],
)  # fmt: skip
def test_what_systems_and_programs_leave_is_known(name):
    assert is_left_behind(name)


@pytest.mark.parametrize("name", ["a.png", "recycle", "1#", "a@b", "_x", "thumbs", "MACOSX", "macosx.png"])
def test_other_names_are_data(name):
    assert not is_left_behind(name)


def test_files_are_found_below_and_folders_are_no_files(tmp_path):
    for name in ("b/2.PNG", "b/10.png", "B/1.png", "a b/1.png", "a/1.jpg", "a/d.png/3.png", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("@eaDir/b/2.png", "a/.hidden/2.png", "a/._1.png", "b/Thumbs.db/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in files(tmp_path, {".png", ".jpg"})]
    assert found == ["B/1.png", "a/1.jpg", "a/d.png/3.png", "a b/1.png", "b/10.png", "b/2.PNG"]
    assert [path.name for path in folders(tmp_path)] == ["B", "a", "a b", "b"]  # upper case comes first
    (tmp_path / "b/2.png").touch()  # names that differ in case only are two files
    assert [path.name for path in files(tmp_path / "b", {".png"})] == ["10.png", "2.PNG", "2.png"]
    assert files(tmp_path, {".gif"}) == [] == folders(tmp_path / "B")
    with pytest.raises(FileNotFoundError):
        files(Path(tmp_path / "none"), {".png"})


def test_a_name_in_a_list_is_a_name_of_a_file_and_no_path():
    assert all(map(is_file_name, ["a.png", "ä b.aedat", "a" * 255]))
    assert not any(map(is_file_name, ["", ".", "..", "a/b", "../a", "/a", "a" * 256, "ä" * 128, "a\0b"]))
