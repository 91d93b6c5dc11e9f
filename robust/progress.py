"""Progress: the one channel on which a long loop says how far it is; whoever called the loop decides how to show it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """How far a loop is.

    Attributes:
        step, total: units of work done and to do.
        seconds: time spent on this work, in all sessions of a resumed loop together.
        images_per_second: samples a second in this session.
        eta: seconds that are left at the present pace.
        terms: named numbers of the moment: loss, accuracy, epoch...
    """

    step: int
    total: int
    seconds: float
    images_per_second: float
    eta: float
    terms: Mapping[str, float] = field(default_factory=dict)


Listener = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """The listener that shows nothing."""
