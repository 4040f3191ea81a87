"""Files and folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from robust_asr.storage import files
from robust_asr.storage.files import append_whole, clean_leftovers, folder_written_whole, written_whole

KILLED = """
import os, signal, sys
from pathlib import Path
from robust_asr.storage.files import folder_written_whole, written_whole
with {context}(Path(sys.argv[1])) as target:
    (target / "inside" if target.is_dir() else target).write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_file_is_replaced_only_when_it_was_written(tmp_path: Path):
    path = tmp_path / "deep" / "file"
    with written_whole(path) as temporary:
        temporary.write_text("one")
    with pytest.raises(RuntimeError, match="halfway"), written_whole(path) as temporary:
        temporary.write_text("two")
        raise RuntimeError("halfway")
    assert path.read_text() == "one"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_has_the_usual_permissions(tmp_path: Path):
    with written_whole(tmp_path / "whole") as temporary:
        temporary.write_text("")
    (tmp_path / "usual").write_text("")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_folder_appears_complete_and_never_over_another(tmp_path: Path):
    folder = tmp_path / "folder"
    with pytest.raises(RuntimeError), folder_written_whole(folder) as temporary:
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with folder_written_whole(folder) as temporary:
        (temporary / "file").write_text("content")
    assert (folder / "file").read_text() == "content"
    with pytest.raises(ValueError, match="is not empty"), folder_written_whole(folder):
        pass


@pytest.mark.parametrize("context", ["written_whole", "folder_written_whole"])
def test_a_killed_process_leaves_the_target_as_it_was(context: str, tmp_path: Path):
    target = tmp_path / "target"
    killed = subprocess.run([sys.executable, "-c", KILLED.format(context=context), str(target)], env=os.environ)
    assert killed.returncode == -signal.SIGKILL
    assert not target.exists()


def test_a_killed_writer_leaves_a_file_that_is_cleaned_and_a_living_one_keeps_its_own(tmp_path: Path):
    subprocess.run(
        [sys.executable, "-c", KILLED.format(context="written_whole"), str(tmp_path / "killed\nname")], env=os.environ
    )
    (leftover,) = tmp_path.iterdir()
    with written_whole(tmp_path / "alive") as partial:
        partial.write_text("half")
        assert clean_leftovers(tmp_path) == [leftover] and list(tmp_path.iterdir()) == [partial]
    assert clean_leftovers(tmp_path) == [] and (tmp_path / "alive").read_text() == "half"
    assert clean_leftovers(tmp_path / "nowhere") == []


def test_a_file_that_is_cleaned_before_its_writer_has_locked_it_is_made_again(tmp_path: Path, monkeypatch):
    """The one moment at which another process takes a new file for a leftover."""
    real, cleaned = files._lock, []

    def late(descriptor: int) -> None:
        if not cleaned:
            cleaned.append(None)
            (partial,) = tmp_path.iterdir()
            partial.unlink()
        real(descriptor)

    monkeypatch.setattr(files, "_lock", late)
    with written_whole(tmp_path / "file") as partial:
        partial.write_text("content")
    assert cleaned and (tmp_path / "file").read_text() == "content" and len(list(tmp_path.iterdir())) == 1


def test_what_does_not_fit_is_not_appended_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "rows"
    append_whole(path, b"first\n")
    write, room = os.pwrite, 3

    def short(descriptor: int, content: bytes, start: int) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = write(descriptor, bytes(content)[:room], start)
        room -= written
        return written

    monkeypatch.setattr(os, "pwrite", short)
    with pytest.raises(OSError, match=re.escape(str(path))):
        append_whole(path, b"second\n")
    assert path.read_bytes() == b"first\n"
    room = 100
    monkeypatch.setattr(os, "pwrite", lambda descriptor, content, start: write(descriptor, bytes(content)[:2], start))
    append_whole(path, b"second\n")
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_full_disk_names_the_file_that_was_to_be_written(tmp_path: Path):
    path = tmp_path / "whole"
    with pytest.raises(OSError, match=re.escape(str(path))) as caught, written_whole(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())
