"""The texts of a row in the form in which its errors are counted: the system's own, where it spells unlike the references."""

from __future__ import annotations

from typing import Any


def compared_reference(row: dict[str, Any]) -> str:
    """The reference as the hypothesis is compared with it."""
    return _compared(row, "reference", row["reference"])


def compared_target(row: dict[str, Any]) -> str:
    """The attacker's target as the hypothesis is compared with it; "" without one."""
    return _compared(row, "target", row.get("target") or "")


def _compared(row: dict[str, Any], name: str, given: str) -> str:
    found = row.get(f"compared_{name}")
    return given if found is None else found
