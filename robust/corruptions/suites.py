"""Named lists of corruptions: what a study means by `common`, `mnist-c` and `imagenet-p`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robust.corruptions.sequences import FRAMES, SEQUENCES

# Hendrycks & Dietterich 2019 (arXiv 1903.12261): 15 that are tested on, and 4 that were meant for validation
BENCHMARK = (
    "gaussian-noise",
    "shot-noise",
    "impulse-noise",
    "defocus-blur",
    "glass-blur",
    "motion-blur",
    "zoom-blur",
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "elastic-transform",
    "pixelate",
    "jpeg-compression",
)
COMMON = (*BENCHMARK, "speckle-noise", "gaussian-blur", "spatter", "saturate")

# Mu & Gilmer 2019 (arXiv 1906.02337): each at one severity, where it has a table with the constants of ImageNet-C
MNIST_C = {
    "shot-noise": 5,
    "impulse-noise": 4,
    "glass-blur": 1,
    "motion-blur": 1,
    "shear": 2,
    "scale": 3,
    "rotate": 2,
    "brightness": 5,
    "translate": 3,
    "stripe": 3,
    "fog": 5,
    "spatter": 4,
    "dotted-line": 1,
    "zigzag": 1,
    "canny-edges": 5,
}
WITHOUT_TABLE = ("shear", "scale", "rotate", "translate", "stripe", "dotted-line", "zigzag", "canny-edges")
SUITES = ("common", "mnist-c", "imagenet-p")


def suite(name: str, severities: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """The evaluations of a suite, as a study file would write them: name, label and settings.

    Args:
        name: `common` (19 corruptions), `mnist-c` (15) or `imagenet-p` (10 sequences of 31 frames).
        severities: which of 1..5; by default all five for `common`, for `mnist-c` the published one of each.

    Raises:
        ValueError: if there is no such suite, or a severity is not in 1..5 (in 1..3 for `imagenet-p`).
    """
    if name not in SUITES:
        raise ValueError(f"no suite of corruptions is called {name!r}; there are {', '.join(SUITES)}")
    highest = 3 if name == "imagenet-p" else 5
    if severities is not None and not all(1 <= severity <= highest for severity in severities):
        raise ValueError(f"severities of {name} run from 1 to {highest}, got {list(severities)}")
    if name == "common":
        return [_entry(corruption, severity) for corruption in COMMON for severity in severities or range(1, 6)]
    if name == "mnist-c":
        return [
            _entry(corruption, severity, **({} if corruption in WITHOUT_TABLE else {"table": "imagenet"}))
            for corruption, published in MNIST_C.items()
            for severity in severities or (published,)
        ]
    return [
        _entry("sequence-frame", severity, f"{sequence}-{severity}-frame-{i}", sequence=sequence, frame=i)
        for severity in severities or (1,)
        for sequence in SEQUENCES
        for i in range(FRAMES)
        if "noise" in sequence or i * severity < FRAMES
    ]


def _entry(name: str, severity: int, label: str | None = None, **settings: Any) -> dict[str, Any]:
    return {"name": name, "label": label or f"{name}-{severity}", "severity": severity, **settings}
