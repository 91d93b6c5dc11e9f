"""Datasets: published image sets, read from a local folder as they were published, held once as uint8."""

from robust.registry import lazy_exports

__getattr__ = lazy_exports(__name__)
