"""The library stands alone: whoever attacks a model of their own needs neither Lightning nor lhotse nor W&B."""

from __future__ import annotations

import ast
import importlib.util
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import robust_asr
from tests.command_line import ROOT

FORBIDDEN = (
    "lightning",
    "pytorch_lightning",
    "lightning_fabric",
    "lhotse",
    "wandb",
    "lightning_modules",
    "datamodules",
)
# Libraries of the extra [hf]. torchmetrics imports them where it finds them, so only our own files can be asked.
OPTIONAL = {"transformers", "tokenizers", "huggingface_hub"}


def test_library_imports_neither_training_nor_data() -> None:
    modules = [module.name for module in pkgutil.walk_packages(robust_asr.__path__, "robust_asr.")]
    assert "robust_asr.models.deepspeech2" in modules
    code = "\n".join(
        [
            "import importlib, sys",
            f"for name in {modules!r}:",
            "    importlib.import_module(name)",
            f"print(sorted({set(FORBIDDEN)!r} & sys.modules.keys()))",
        ]
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


PACKAGES = ("robust_asr", "lightning_modules", "datamodules")


def outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield child
            yield from outside_functions(child)


@pytest.mark.parametrize("package", PACKAGES)
def test_optional_libraries_are_imported_inside_functions_only(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        for node in outside_functions(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not OPTIONAL & {name.split(".")[0] for name in names}, path


def imports_of(path: Path, names: set[str]) -> set[str]:
    """The modules of the project that a file imports anywhere, also inside functions."""
    wanted = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            wanted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            wanted |= inside & names or {node.module}
    return wanted & names


def import_graph() -> dict[str, set[str]]:
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    return {name: imports_of(path, set(files)) - {name} for name, path in files.items()}


def room_of(module: str) -> str:
    """robust_asr.attacks.pgd -> robust_asr.attacks; a file at a root is a room of its own."""
    return ".".join(module.split(".")[:2])


def assert_no_circle(graph: dict[str, set[str]]) -> None:
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"imports run in a circle: {' <- '.join(error.args[1])}")


def test_imports_run_in_no_circle() -> None:
    graph = import_graph()
    assert len(graph) > 150 and "robust_asr.types" in graph["robust_asr.models.base"]
    assert_no_circle(graph)


def test_rooms_run_in_no_circle() -> None:
    """Folders, too: whoever reads one needs to know only those below it."""
    rooms: dict[str, set[str]] = {}
    for module, imported in import_graph().items():
        rooms.setdefault(room_of(module), set()).update(map(room_of, imported))
    assert_no_circle({room: imported - {room} for room, imported in rooms.items()})


def test_nothing_is_loose_at_the_root_of_the_library() -> None:
    assert len(list((ROOT / "robust_asr").glob("*.py"))) <= 12


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_imports_of_us_is_there(path: Path) -> None:
    """Benchmarks run by hand, some with a library that the tests have not: a name that is gone would be noticed by nobody."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            module = importlib.import_module(node.module)
            missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
            missing = [name for name in missing if importlib.util.find_spec(f"{node.module}.{name}") is None]
            assert not missing, f"{path.name}: {node.module} has no {', '.join(missing)}"
