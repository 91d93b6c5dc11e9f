"""Objectives: what a training run minimises, one file each."""

from robust.registry import lazy_exports

__getattr__ = lazy_exports(__name__)
