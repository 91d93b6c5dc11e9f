"""The public per-image implementation `imagecorruptions` 1.1.2, made to import beside current numpy, scipy, skimage.

It was written for numpy 1, and asks for names that have moved since: aliases are put where it looks for them, in this
process only. `scikit-image` and `opencv-python-headless` must be installed. Nothing of its arithmetic is changed.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


@functools.cache
def _module() -> Any:
    if not all(importlib.util.find_spec(name) for name in ("imagecorruptions", "skimage", "cv2")):
        return None
    package = Path(importlib.util.find_spec("imagecorruptions").origin).parent  # type: ignore[union-attr,arg-type]
    if not hasattr(np, "float_"):
        np.float_ = np.float64  # type: ignore[attr-defined]
    interpolation = types.ModuleType("scipy.ndimage.interpolation")
    interpolation.map_coordinates = importlib.import_module("scipy.ndimage").map_coordinates  # type: ignore[attr-defined]
    sys.modules.setdefault("scipy.ndimage.interpolation", interpolation)
    resources = types.ModuleType("pkg_resources")
    resources.resource_filename = lambda _, path: str(package / path)  # type: ignore[attr-defined]
    sys.modules.setdefault("pkg_resources", resources)
    module = importlib.import_module("imagecorruptions.corruptions")
    gaussian = module.gaussian

    def with_axis(image: Any, sigma: Any, multichannel: bool = False, **settings: Any) -> Any:
        return gaussian(image, sigma, channel_axis=-1 if multichannel else None, **settings)

    module.gaussian = with_axis
    return module


def peer_names() -> tuple[str, ...]:
    """The corruptions that the peer has, by our names; none where it is not installed."""
    module = _module()
    if module is None:
        return ()
    from robust.corruptions.suites import COMMON

    return tuple(name for name in COMMON if hasattr(module, name.replace("-", "_")))


def peer_image(name: str, severity: int, image: np.ndarray) -> np.ndarray:
    """The peer's version of an 8-bit image [H,W,3]: what its `corrupt` does, 8 bits in and out."""
    return np.uint8(getattr(_module(), name.replace("-", "_"))(Image.fromarray(image), severity))
