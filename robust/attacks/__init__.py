"""Attacks: fixed budget, smallest distance, black box; one file each, all against `robust.attacks.attack`."""

from robust.registry import lazy_exports

__getattr__ = lazy_exports(__name__)
