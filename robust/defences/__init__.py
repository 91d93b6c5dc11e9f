"""Defences: wrappers around a classifier that declare their gradient rule and their randomness, one file each."""

from robust.registry import lazy_exports

__getattr__ = lazy_exports(__name__)
