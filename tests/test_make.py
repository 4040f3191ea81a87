"""The long targets of make, with commands that only say how they were called: in order, no stage twice, on after a failure."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.command_line import ROOT

CHAIN = "runs/joshi2022/an4"


def chain(scale: str, begin: str) -> list[tuple[str, ...]]:
    return [
        ("fit", f"an4/{begin}"),
        ("predict", "joshi2022/offline_attacks", scale),
        ("predict", "joshi2022/offline_attacks_targeted", scale),
        ("fit", "joshi2022/denoiser", scale),
        ("fit", "joshi2022/finetune_asr", scale),
        ("fit", "joshi2022/finetune_joint", scale),
        ("fit", "joshi2022/finetune_joint_frozen", scale),
        ("fit", "joshi2022/finetune_mixture", scale),
        ("test", "joshi2022/standard", scale),
        ("test", "joshi2022/table3", scale),
        ("test", "joshi2022/table4", scale),
    ]


STAGES = chain("an4", "baseline")
CONFORMER_STAGES = chain("an4_conformer", "conformer_lfmmi")
DEMO = "runs/quickstart"
DEMO_STAGES = [
    ("fit", "quickstart/clean"),
    ("fit", "quickstart/hardened"),
    ("fit", "quickstart/adversarial"),
    ("test", "quickstart/evaluation"),
    ("test", "quickstart/standard"),
]
STAGE = r"train.py (\w+) --config recipes/(\S+).yaml(?: --values configs/scale/(\w+).yaml)?( --ckpt_path auto)?$"
STUB = f"""#!/bin/sh
echo "$@" >> calls.txt
mkdir -p runs/an4 {CHAIN}/report {CHAIN}_conformer/report {DEMO}/report
case "$*" in *"/$(cat broken.txt).yaml"*) exit 1;; esac
case "$*" in *robust_asr.report*) for last; do :; done; touch "$last/index.html";; esac
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    for name in ("Makefile", "constraints.txt", "setup.cfg"):
        shutil.copy(ROOT / name, tmp_path)
    for name in ("data/an4/train.jsonl.gz", ".venv/.ready", ".venv/bin/python", "broken.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text(STUB)
    python.chmod(0o755)
    return tmp_path


def make(
    checkout: Path, target: str = "joshi2022-an4", *, broken: str = "none"
) -> tuple[int, list[tuple[str, ...]], list[str]]:
    """Exit code, the stages that ran, and the other calls."""
    (checkout / "broken.txt").write_text(broken)
    (checkout / "calls.txt").write_text("")
    code = subprocess.run(["make", target], cwd=checkout, capture_output=True, text=True).returncode
    calls = (checkout / "calls.txt").read_text().splitlines()
    stages = [re.match(STAGE, call) for call in calls]
    assert all(bool(stage[4]) == (stage[1] == "fit") for stage in stages if stage), "a fit goes on by itself too"
    others = [call for call, stage in zip(calls, stages, strict=True) if not stage]
    return code, [tuple(filter(None, stage.groups()[:3])) for stage in stages if stage], others


def test_stages_run_in_order_and_once(checkout: Path) -> None:
    code, stages, others = make(checkout)
    assert (code, stages) == (0, STAGES)
    assert others == [f"-m robust_asr.report {CHAIN}/standard {CHAIN}/table3 {CHAIN}/table4 --out {CHAIN}/report"]
    assert make(checkout) == (0, [], []), "a finished chain is not repeated"


def test_the_chain_of_the_conformer_is_another(checkout: Path) -> None:
    assert make(checkout)[:2] == (0, STAGES)
    code, stages, others = make(checkout, "joshi2022-an4-conformer")
    assert (code, stages) == (0, CONFORMER_STAGES)
    runs = f"{CHAIN}_conformer"
    assert others == [f"-m robust_asr.report {runs}/standard {runs}/table3 {runs}/table4 --out {runs}/report"]
    assert make(checkout, "joshi2022-an4-conformer") == (0, [], [])


def test_the_demo_trains_three_and_evaluates_them_once(checkout: Path) -> None:
    code, stages, others = make(checkout, "demo")
    assert (code, stages) == (0, DEMO_STAGES)
    assert others == [f"-m robust_asr.report {DEMO}/evaluation {DEMO}/standard --out {DEMO}/report"]
    assert make(checkout, "demo") == (0, [], [])


@pytest.mark.parametrize("index", [0, 2, 3])
def test_a_demo_that_was_stopped_goes_on(checkout: Path, index: int) -> None:
    code, stages, _ = make(checkout, "demo", broken=DEMO_STAGES[index][1])
    assert code != 0 and stages == DEMO_STAGES[: index + 1]
    assert make(checkout, "demo")[:2] == (0, DEMO_STAGES[index:])


def test_every_stage_is_a_recipe() -> None:
    stages = STAGES + CONFORMER_STAGES + DEMO_STAGES
    assert all((ROOT / "recipes" / f"{name}.yaml").is_file() for _, name, *_ in stages)
    assert all((ROOT / "configs" / "scale" / f"{scale}.yaml").is_file() for _, _, *scales in stages for scale in scales)


@pytest.mark.parametrize("index", [0, 2, 3, 5, 9])
def test_a_stage_that_was_stopped_goes_on_and_no_other_is_repeated(checkout: Path, index: int) -> None:
    code, stages, _ = make(checkout, broken=STAGES[index][1])
    assert code != 0 and stages == STAGES[: index + 1]
    assert make(checkout)[:2] == (0, STAGES[index:])


def test_a_missing_corpus_is_named(checkout: Path) -> None:
    (checkout / "data/an4/train.jsonl.gz").unlink()
    found = subprocess.run(["make", "joshi2022-an4"], cwd=checkout, capture_output=True, text=True)
    assert found.returncode != 0 and "datamodules.prepare librispeech AN4_FOLDER data/an4" in found.stdout


def interpreters(checkout: Path, versions: dict[str, str]) -> dict[str, str]:
    """An environment in which these commands say that they are these versions, and the others nothing."""
    folder = checkout / "interpreters"
    folder.mkdir()
    (checkout / ".venv" / ".ready").unlink()
    for name in ("python3", "python3.11", "python3.12", "python3.13"):
        answer = f"echo {versions[name]}" if name in versions else "exit 127"
        (folder / name).write_text(f'#!/bin/sh\ncase "$1" in -c) {answer};; *) echo "{name} $@" >> calls.txt;; esac\n')
        (folder / name).chmod(0o755)
    return {"PATH": f"{folder}:/usr/local/bin:/usr/bin:/bin"}


@pytest.mark.parametrize("target", ["demo", "test", "test-python"])
@pytest.mark.parametrize("version", ["3.10.13", "3.14.0", "2.7.18"])
def test_another_python_is_refused_before_anything_is_installed(checkout: Path, target: str, version: str) -> None:
    environment = interpreters(checkout, {"python3": version})
    found = subprocess.run(["make", target], cwd=checkout, capture_output=True, text=True, env=environment)
    assert found.returncode != 0
    assert found.stdout.splitlines()[-1] == (
        f"python3 is {version}, accepted is Python 3.13, 3.12, 3.11: install one or name it, make PYTHON=PATH"
    )
    assert not (checkout / "calls.txt").exists() and not (checkout / ".venv" / ".ready").exists()


@pytest.mark.parametrize(
    ("versions", "used"),
    [
        ({"python3": "3.11.2", "python3.13": "3.13.0"}, "python3"),
        ({"python3": "3.10.13", "python3.11": "3.11.7", "python3.12": "3.12.1"}, "python3.12"),
        ({"python3": "3.14.0", "python3.13": "3.13.0", "python3.11": "3.11.7"}, "python3.13"),
        ({"python3.11": "3.11.7"}, "python3.11"),
    ],
)
def test_the_newest_accepted_python_stands_in(checkout: Path, versions: dict[str, str], used: str) -> None:
    environment = interpreters(checkout, versions)
    found = subprocess.run(["make", ".venv/.ready"], cwd=checkout, capture_output=True, text=True, env=environment)
    first = versions.get("python3", "missing")
    said = f"python3 is {first}, using {used}, which is {versions[used]}" in found.stdout.splitlines()
    assert found.returncode == 0 and said == (used != "python3")
    calls = (checkout / "calls.txt").read_text().splitlines()
    assert calls[0] == f"{used} -m venv .venv" and calls[1].startswith(
        "-m pip install --quiet --constraint constraints.txt"
    )
    assert (checkout / ".venv" / ".ready").exists()


def test_a_python_that_is_named_is_not_replaced(checkout: Path) -> None:
    environment = interpreters(checkout, {"python3": "3.10.13", "python3.13": "3.13.0"})
    found = subprocess.run(
        ["make", "test", "PYTHON=python3"], cwd=checkout, capture_output=True, text=True, env=environment
    )
    assert found.returncode != 0 and "python3 is 3.10.13, accepted is" in found.stdout
    assert not (checkout / "calls.txt").exists()


@pytest.mark.parametrize("version", [(3, 10, 13), (3, 14, 0)])
def test_pip_is_told_too(version: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit, match=r"robust-asr needs Python 3\.11, 3\.12 or 3\.13, this is"):
        exec(compile((ROOT / "setup.py").read_text(), "setup.py", "exec"), {})


def test_the_makefile_accepts_what_the_package_does() -> None:
    makefile, package = (ROOT / "Makefile").read_text(), (ROOT / "setup.cfg").read_text()
    accepted = re.search(r"^PYTHONS := (.*)$", makefile, re.MULTILINE)[1].split()
    minors = sorted(int(version.removeprefix("3.")) for version in accepted)
    assert f"python_requires = >=3.{minors[0]},<3.{minors[-1] + 1}" in package
    assert minors == list(range(minors[0], minors[-1] + 1))
    assert f"not in ({', '.join(f'(3, {minor})' for minor in minors)})" in (ROOT / "setup.py").read_text()
