"""Several runs as one: what is the same is joined, what only shares a name is told apart."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robust_asr.report.grid import tabulate
from robust_asr.report.runs import read_runs, run_names
from robust_asr.report.verdict import not_run
from robust_asr.results import key
from tests.robust_asr.report.example import CHECKS, CONDITIONS, SYSTEMS, write_example

CHOSEN = {name: CONDITIONS[name] for name in ("clean", "pgd7-0.01")}


def write(folder: Path, *names: str, **more) -> Path:
    systems = {name: SYSTEMS.get(name, SYSTEMS["RS 0.01"]) for name in names}
    return write_example(folder, systems=systems, **{"conditions": CHOSEN, "num_utterances": 3, "keep_audio": 0} | more)


def edit(folder: Path, change) -> None:
    path = folder / "evaluation.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/r/a"], ["a"]),
        (["/r/a/test", "/r/b/test"], ["a", "b"]),
        (["/r/a/x/test", "/r/b/x/test"], ["a", "b"]),
        (["/r/a", "/q/a"], ["r", "q"]),
        (["/r/a", "/r/b/a"], ["r", "b"]),
        (["/r/a/1", "/r/b/2", "/r/c/1"], ["a/1", "b/2", "c/1"]),
        (["/"], ["/"]),
    ],
)
def test_runs_are_named_by_what_differs(paths, names):
    assert run_names([Path(path) for path in paths]) == names


def rehash(folder: Path, system: str) -> Path:
    """Another system of the same name."""
    new = f"another {system}"
    edit(folder, lambda content: content["systems"][system].update(hash=new))
    path = folder / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["system"] == system:
            row["hashes"]["system"] = new
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_other_systems_of_one_name_get_the_name_of_their_run(tmp_path):
    folders = [write(tmp_path / "a/test", "baseline", "x"), write(tmp_path / "b/test", "baseline", "y")]
    found = read_runs([folders[0], rehash(folders[1], "baseline")])
    assert list(found.evaluation.systems) == ["baseline (a)", "x", "baseline (b)", "y"]
    assert list(found.evaluation.conditions) == list(CHOSEN) and list(found.evaluation.parts) == ["test-clean"]
    assert len(found.evaluation.rows) == 2 * 2 * 2 * 3
    order = [(row["condition"], row["system"]) for row in found.evaluation.rows][::3]
    assert order == [(condition, system) for condition in CHOSEN for system in found.evaluation.systems]


def test_a_system_of_two_runs_is_one_and_what_both_asked_counts_once(tmp_path):
    more = CHOSEN | {"pgd7-0.01-unaware": CONDITIONS["pgd7-0.01-unaware"]}
    found = read_runs([write(tmp_path / "a", "x"), write(tmp_path / "b", "x", conditions=more)])
    assert list(found.evaluation.systems) == ["x"] and list(found.evaluation.parts) == ["test-clean"]
    assert list(found.evaluation.conditions) == ["clean", "pgd7-0.01", "pgd7-0.01-unaware"]
    assert len(found.evaluation.rows) == 3 * 3 == len({key(row) for row in found.evaluation.rows})
    assert len(found.asked) == 3


def test_a_system_that_heard_otherwise_stays_apart(tmp_path):
    folders = [write(tmp_path / name, "x") for name in ("a", "b")]
    path = folders[1] / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0]["hypothesis"] += " AND MORE"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(read_runs(folders).evaluation.systems) == ["x (a)", "x (b)"]


def test_only_what_a_run_asks_for_is_missing(tmp_path):
    folders = [write(tmp_path / "a", "x"), write(tmp_path / "b", "y", conditions={"clean": CONDITIONS["clean"]})]
    edit(folders[1], lambda content: content["parts"]["test-clean"].update(num_utterances=4))
    grid = tabulate(read_runs(folders))
    assert grid.parts == ["test-clean (a)", "test-clean (b)"]
    assert grid.conditions_on("test-clean (a)") == list(CHOSEN) and grid.conditions_on("test-clean (b)") == ["clean"]
    assert [len(grid.families_on(part)) for part in grid.parts] == [1, 0]
    assert not_run(grid) == []


def test_a_row_knows_where_it_came_from(tmp_path):
    folders = [write(tmp_path / "a", "baseline"), rehash(write(tmp_path / "b", "baseline"), "baseline")]
    found = read_runs(folders)
    row = found.evaluation.select("baseline (b)", "clean", "test-clean")[0]
    assert found.origins[key(row)] == (folders[1], ("baseline", "clean", "test-clean", row["id"]))


def test_conditions_of_another_hash_are_other_conditions(tmp_path):
    folders = [write(tmp_path / name, name) for name in ("a", "b")]
    edit(folders[1], lambda content: content["conditions"]["clean"].update(hash="other"))
    assert list(read_runs(folders).evaluation.conditions) == ["clean (a)", "pgd7-0.01", "clean (b)"]


@pytest.mark.parametrize("change", ["size", "hash", "recordings"])
def test_parts_that_differ_are_other_parts(tmp_path, change):
    folders = [write(tmp_path / name, name) for name in ("a", "b")]
    if change == "recordings":
        path = folders[1] / "results.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        rows[0]["hashes"]["data"] = "another recording of the same name"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        field = {"size": {"num_utterances": 4}, "hash": {"hash": "x"}}[change]
        edit(folders[1], lambda content: content["parts"]["test-clean"].update(field))
    assert list(read_runs(folders).evaluation.parts) == ["test-clean (a)", "test-clean (b)"]


def test_a_name_that_would_join_two_systems_is_refused(tmp_path):
    folders = [write(tmp_path / "a", "x", "x (b)"), rehash(write(tmp_path / "b", "x"), "x")]
    with pytest.raises(ValueError, match=r"/b: its system 'x' would be 'x \(b\)', as one of another run is"):
        read_runs(folders)


def test_a_run_is_named_once(tmp_path):
    folder = write(tmp_path / "a", "x")
    with pytest.raises(ValueError, match="is named twice"):
        read_runs([folder, tmp_path / "b" / ".." / "a"])
    with pytest.raises(ValueError, match="name at least one run folder"):
        read_runs([])


def test_a_run_counts_what_it_asks_for(tmp_path):
    (run,) = read_runs([write(tmp_path / "a", "x", "y", rows=0.5)]).runs
    assert (len(run.evaluation.rows), run.expected) == (6, 12)
    assert run.about.keys() == {"format", "seed", "code"} and run.about["seed"] == 0


def test_a_description_that_cannot_be_shown_is_named(tmp_path):
    folder = write(tmp_path / "a", "x")
    path = folder / "evaluation.json"
    whole = path.read_text()
    # Python reads a little deeper than it writes with indentation; where the two limits lie depends on the caller.
    found = set()
    for seed in ("NaN", *("[" * depth + "]" * depth for depth in range(500, 1100, 5))):
        path.write_text(whole.replace('"seed": 0', f'"seed": {seed}'))
        try:
            read_runs([folder])
        except ValueError as error:
            found.add(str(error).split("evaluation.json: ")[1])
    assert "is not JSON (it holds the number NaN)" in found and "is not JSON (it is nested too deeply)" in found
    assert all("cannot be shown" in message or "is not JSON" in message for message in found)


def test_checks_follow_the_names_of_the_report(tmp_path):
    folders = [write(tmp_path / name, "RS 0.01 + denoiser", checks=CHECKS) for name in ("a", "b")]
    found = read_runs([folders[0], rehash(folders[1], "RS 0.01 + denoiser")])
    assert len(found.checks) == 2 * len(CHECKS)
    failed = [check for check in found.checks if check.verdict == "fail"]
    assert [check.system for check in failed] == ["RS 0.01 + denoiser (a)", "RS 0.01 + denoiser (b)"]
    assert failed[0].value == 0.0 and failed[0].condition == "pgd7-0.001"
    assert read_runs([write(tmp_path / "none", "x")]).checks == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "must hold a list of checks, found a dict"),
        ("[3]", "check 1: must be a map, found a int"),
        ('[{"name": "a", "verdict": "perhaps"}]', "check 1: needs a name and a verdict of fail, not run, pass"),
        ('[{"verdict": "pass"}]', "needs a name"),
        ('[{"name": "a", "verdict": "pass"}, {"name": "a", "verdict": []}]', "check 2: field 'verdict' must be a text"),
        ('[{"name": "a", "verdict": "pass", "value": {}}]', "check 1: field 'value' must be a text"),
    ],
)
def test_checks_that_are_none_are_named(tmp_path, content, message):
    folder = write(tmp_path / "a", "x")
    (folder / "checks.json").write_text(content)
    with pytest.raises(ValueError, match=rf"checks\.json.*{message}"):
        read_runs([folder])
