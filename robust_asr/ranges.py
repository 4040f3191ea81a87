"""What the arguments of models may be: a ValueError names the first out of range, what was found and what is accepted."""

from __future__ import annotations


def require_sizes(owner: str, *, least: int = 1, **sizes: int) -> None:
    """Numbers of layers, units or channels of a model whose class is ``owner``."""
    for name, value in sizes.items():
        if value < least:
            raise ValueError(f"{owner}: {name} is {value}, accepted is {least} or more")


def require_shares(owner: str, **shares: float) -> None:
    """Rates of dropout and weights in a sum, in [0, 1)."""
    for name, value in shares.items():
        if not 0 <= value < 1:
            raise ValueError(f"{owner}: {name} is {value}, accepted is 0 <= {name} < 1")


def require_heads(owner: str, width: int, **parts: int) -> None:
    """Heads or groups that a width is dealt to."""
    for name, value in parts.items():
        if width % value:
            raise ValueError(f"{owner}: width {width} must be a multiple of {name} {value}")


def require_odd(owner: str, **sizes: int) -> None:
    """Kernels with a middle."""
    for name, value in sizes.items():
        if value < 1 or value % 2 == 0:
            raise ValueError(f"{owner}: {name} is {value}, accepted is an odd number")
