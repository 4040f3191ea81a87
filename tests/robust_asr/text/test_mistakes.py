from __future__ import annotations

from pathlib import Path

import pytest

from robust_asr.text.mistakes import leave, sentence


def test_a_file_that_cannot_be_used_comes_first(tmp_path: Path) -> None:
    with pytest.raises(OSError) as error:
        (tmp_path / "absent" / "c.yaml").read_text()
    assert sentence(error.value) == f"{tmp_path}/absent/c.yaml: No such file or directory"
    assert sentence(FileNotFoundError("a.yaml: names b.yaml")) == "a.yaml: names b.yaml"


def test_a_sentence_is_one_printable_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        leave(ValueError("x\x1b[2J is\n  no\tnumber\u202e"))
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: x\ufffd[2J is no number\ufffd\n"
    assert sentence(ValueError()) == "ValueError"
