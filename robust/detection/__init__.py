"""Detection: scores that tell in-distribution images from others, one file each."""

from robust.registry import lazy_exports

__getattr__ = lazy_exports(__name__)
