"""Corruptions and shifts: what happens to images without an adversary, one file each."""

from robust.registry import lazy_exports

__getattr__ = lazy_exports(__name__)
