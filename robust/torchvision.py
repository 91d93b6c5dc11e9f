"""torchvision, imported lazily and also beside a CPU build of torch that its compiled operators do not match.

The registry's torchvision wheel is built for one CUDA version. Beside a CPU torch its extension cannot be loaded, and
the package then stops at import, because it describes operators (`nms`, `qnms`) that nobody declared. Declaring their
schemas is enough for everything that is pure Python: data sets, transforms, model definitions. Where torchvision
imports by itself nothing here takes effect. Libraries that import torchvision themselves (torchmetrics, timm) work
after one call of `load`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import TypeVar

import torch

OPERATORS = ("nms", "qnms")
UNDECLARED = "torchvision::nms does not exist"  # how torchvision's own import complains
Made = TypeVar("Made")


def load() -> ModuleType:
    """The torchvision package.

    Raises:
        ModuleNotFoundError: if torchvision is not installed.
        RuntimeError: whatever else stops its import.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if UNDECLARED not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half-imported: they must run again
    declared_operators()
    return importlib.import_module("torchvision")


def beside_torchvision(make: Callable[[], Made]) -> Made:
    """What `make` returns, tried once more after `load` if somebody's own `import torchvision` stopped it."""
    try:
        return make()
    except RuntimeError as error:
        if UNDECLARED not in str(error):
            raise
    load()
    return make()


@cache
def declared_operators() -> torch.library.Library:
    """Schemas of the operators that the missing extension would have declared; cached, since they die with it."""
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in OPERATORS:
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return library
