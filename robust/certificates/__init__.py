"""Certificates: sound proofs of robustness, one file each."""

from robust.registry import lazy_exports

__getattr__ = lazy_exports(__name__)
