"""Which images a network takes: channels, size and layout, found by asking it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from robust.foreign.bench import Bench
from robust.foreign.findings import Finding
from robust.foreign.loaded import ForeignError
from robust.foreign.preparation import Preparation

# sides that published classifiers have, the usual ones first
SIDES = (224, 32, 28, 64, 299, 16, 8, 20, 48, 96, 128, 160, 192, 227, 240, 256, 288, 320, 336, 380, 384, 448, 512)


def runs(bench: Bench, start: Preparation) -> tuple[Preparation, list[Finding]]:
    """The first shape and layout that the network takes, beginning with the data's own.

    Raises:
        ForeignError: with what the network says to the data's own shape, if it takes none.
    """
    complaints: list[str] = []
    for option in _options(start):
        answer = bench.raw(option)
        if isinstance(answer, Tensor):
            return option, _found(start, option, complaints[0] if complaints else "")
        complaints.append(answer)
    raise ForeignError(
        f"the network takes no images of {start.shape[0]} x {start.shape[1]} x {start.shape[2]}, and none of the usual "
        f"sizes, grey or colour, in either layout; it says: {complaints[0]}"
    )


def other_sizes(bench: Bench, start: Preparation) -> Iterator[Preparation]:
    """The same preparation at other sizes that the network takes; up to 16 times as many pixels."""
    channels, height, width = start.shape
    for side in sorted(SIDES, key=lambda side: abs(side - max(height, width))):
        if (side, side) != (height, width) and side * side <= 64 * height * width:
            option = start.model_copy(update={"shape": (channels, side, side)})
            if isinstance(bench.raw(option), Tensor):
                yield option


def resized(given: tuple[int, int, int], found: tuple[int, int, int]) -> tuple[str, str, str]:
    """Mistake, evidence and remedy for another size."""
    sizes = f"{given[1]} x {given[2]}", f"{found[1]} x {found[2]}"
    return (
        "image size",
        f"the data have {sizes[0]} pixels, the network expects {sizes[1]}",
        "evaluated on resized images: eps is measured after resizing",
    )


def _options(start: Preparation) -> Iterator[Preparation]:
    channels, height, width = start.shape
    for side in ((height, width), *((side, side) for side in SIDES)):
        for count in (channels, 4 - channels):  # 1 and 3
            for last in (False, True):
                yield start.model_copy(update={"shape": (count, *side), "channels_last": last})


def _found(given: Preparation, option: Preparation, said: str) -> list[Finding]:
    found = []
    said = f" (to the data's own it says: {said})" if said else ""
    if option.shape[0] != given.shape[0]:
        wants = ("one channel", "colour") if option.shape[0] == 1 else ("three channels", "grey")
        evidence = f"the network wants {wants[0]}, the data are {wants[1]}{said}"
        found.append(Finding("grey for colour", evidence, "evaluated on converted images"))
    if option.shape[1:] != given.shape[1:]:
        mistake, evidence, remedy = resized(given.shape, option.shape)
        found.append(Finding(mistake, evidence + said, remedy))
    if option.channels_last:
        evidence = f"the network takes [N,H,W,C] alone{said}"
        found.append(Finding("HWC", evidence, "evaluated so; permute the axes inside the model"))
    return found
