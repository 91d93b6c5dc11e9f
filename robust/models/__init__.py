"""Models: architectures that take normalised images and return logits, one file each."""

from robust.registry import lazy_exports

__getattr__ = lazy_exports(__name__)
