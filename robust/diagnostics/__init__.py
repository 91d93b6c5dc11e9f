"""Diagnostics: measurements that say whether a number can be believed, and why, one file each."""

from robust.registry import lazy_exports

__getattr__ = lazy_exports(__name__)
