from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch import nn

from robust_asr.storage.describe import describe


@dataclass(frozen=True)
class Inner:
    values: tuple[int, ...] = (1, 2)


class Outer(nn.Module):
    def __init__(self, inner: Inner | None = None, *, rates: dict[str, float] | None = None, name: str = "x") -> None:
        super().__init__()
        self.inner = inner if inner is not None else Inner()
        self.rates = rates
        self.name = name
        self.not_an_argument = object()


class Forgetful:
    def __init__(self, size: int) -> None:
        self.num = size


class Greedy:
    def __init__(self, **anything: int) -> None:
        self.anything = anything


def test_nested_as_plain_data() -> None:
    description = describe(Outer(rates={"a": 0.5}))
    assert description == {
        "class_path": f"{__name__}.Outer",
        "init_args": {
            "inner": {"class_path": f"{__name__}.Inner", "init_args": {"values": [1, 2]}},
            "rates": {"a": 0.5},
            "name": "x",
        },
    }
    assert json.loads(json.dumps(description)) == description


@pytest.mark.parametrize("value", [None, True, 3, 0.5, "text", [1, [2.5]], {"a": {"b": None}}])
def test_plain_data_is_itself(value: object) -> None:
    assert describe(value) == value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Forgetful(3), "Forgetful does not keep its argument 'size'"),
        (Greedy(a=1), "Greedy does not keep its argument 'anything'"),
        (b"bytes", "bytes cannot be described"),
        ({1, 2}, "set cannot be described"),
        (len, "cannot be described"),
        (lambda: 0, "function"),
        (Inner, "type"),
        (Path("x"), "Path"),
    ],
)
def test_what_cannot_be_described_is_named(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        describe(value)
