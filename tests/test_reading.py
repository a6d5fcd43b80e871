"""Files that others may have put where one is expected: none is waited for."""

import os
from pathlib import Path

import pytest

from latentseg.data.files import read_text
from latentseg.errors import DataError, RunError
from latentseg.reading import read_whole
from latentseg.report.collect import read_json
from latentseg.runs.checkpoints import Checkpoints
from latentseg.runs.folder import open_run
from latentseg.runs.locks import live_owner


def test_a_file_is_read_and_a_link_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"a\0b")
    (tmp_path / "link").symlink_to("file")
    assert read_whole(tmp_path / "link") == b"a\0b"
    with pytest.raises(FileNotFoundError):
        read_whole(tmp_path / "none")


@pytest.fixture(params=["pipe", "device", "folder"])
def odd(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "odd"
    {"pipe": os.mkfifo, "folder": os.mkdir, "device": lambda path: path.symlink_to("/dev/zero")}[request.param](path)
    return path


def test_what_has_no_end_is_refused(odd: Path) -> None:
    with pytest.raises(OSError, match="a folder, a pipe or a device is in the place of the file"):
        read_whole(odd)
    with pytest.raises(DataError, match="a folder, a pipe or a device"):
        read_text(odd)
    assert "a folder, a pipe or a device" in read_json(odd)["error"]
    if odd.is_fifo():  # new, as a lock that cannot be read
        assert live_owner(odd) is not None


@pytest.mark.parametrize("name", ["index.json", "step_00000003.safetensors", "best_00000003.safetensors"])
def test_a_checkpoints_folder_with_odd_files_answers(odd: Path, name: str) -> None:
    folder = odd.parent / "checkpoints"
    folder.mkdir()
    odd.rename(folder / name)
    checkpoints = Checkpoints(folder)
    last = checkpoints.best() if name.startswith("best") else checkpoints.last()
    assert (last and last.kind) == (None if name == "index.json" else "unread")
    if last:
        with pytest.raises(RunError, match="cannot be read: a folder, a pipe or a device is in the place of the file"):
            checkpoints.read(last)


def test_a_run_with_an_odd_file_is_one_message(odd: Path) -> None:
    (odd.parent / "config.yaml").write_text("data: {kind: scenes}\n")
    odd.rename(odd.parent / "classes.json")
    with pytest.raises(RunError, match=r"classes\.json cannot be read \(.*a folder, a pipe or a device"):
        open_run(odd.parent)
