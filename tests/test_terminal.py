"""Nothing that comes from a file commands the terminal: one place prints, and every command guards what Python prints itself."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robust_asr.text.terminal import printable, printable_lines, say
from tests.command_line import ROOT
from tests.test_layers import PACKAGES

ESCAPE = "\x1b[2Jred\u202e"
# The child process answers its parent, which reads phones.
OWN_PROTOCOL = "robust_asr/lfmmi/espeak.py"


def files() -> list[Path]:
    return [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def calls(tree: ast.AST) -> set[str]:
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def test_one_file_prints() -> None:
    writing = {"print", "sys.stdout.write", "sys.stderr.write"}
    printing = {str(path.relative_to(ROOT)) for path in files() if calls(ast.parse(path.read_text())) & writing}
    assert printing == {"robust_asr/text/terminal.py", OWN_PROTOCOL}


def test_every_command_guards_the_terminal() -> None:
    commands = 0
    for path in files():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name == "main" and path != ROOT / OWN_PROTOCOL:
                assert "guard_terminal" in calls(node), path
                commands += 1
    assert commands >= 6


def test_a_line_stays_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    say("first", f"a\nb {ESCAPE}", 7, indent="  ")
    assert capsys.readouterr().out == "first\n  a\ufffdb \ufffd[2Jred\ufffd\n  7\n"
    assert printable("it’s ok") == "it’s ok"
    assert printable_lines(f"{ESCAPE}\nb") == "\ufffd[2Jred\ufffd\nb"


def test_tracebacks_warnings_and_logs_are_printable() -> None:
    code = f"""
import logging, warnings
from robust_asr.text.terminal import guard_terminal
guard_terminal()
guard_terminal()
warnings.warn("warned {ESCAPE}")
logging.basicConfig(format="%(message)s")
logging.getLogger("pytorch_lightning").warning("logged %s", "{ESCAPE}")
try:
    raise KeyError("cause {ESCAPE}")
except KeyError as error:
    raise RuntimeError("raised {ESCAPE}\\nsecond line") from error
"""
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONUTF8": "1"}
    )
    said = result.stderr.split("\n")
    assert result.returncode == 1 and "\x1b" not in result.stderr and "\u202e" not in result.stderr
    assert any("UserWarning: warned \ufffd[2Jred" in line for line in said)
    assert "logged \ufffd[2Jred\ufffd" in said
    assert "RuntimeError: raised \ufffd[2Jred\ufffd" in said and "second line" in said
