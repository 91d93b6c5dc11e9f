"""Texts in the columns of a terminal: what does not fit is cut visibly, and where it says least."""

from __future__ import annotations


def fitted(text: str, width: int) -> str:
    """The text in at most `width` characters, its middle replaced by `…` where it is longer.

    Names of evaluations and networks differ at their ends (`worst-case linf 1/10`, `pgd-2`), so both ends are kept.
    """
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return f"{text[: width - 1 - tail]}…{text[len(text) - tail :]}"
