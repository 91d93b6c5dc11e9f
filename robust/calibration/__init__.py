"""Calibration: how far a confidence can be believed: metrics with intervals, and calibrators, one file each."""

from robust.registry import lazy_exports

__getattr__ = lazy_exports(__name__)
