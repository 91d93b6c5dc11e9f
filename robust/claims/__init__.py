"""Claims: what a paper, or a person, says of a method, put to the test on what a study measured."""

from robust.registry import lazy_exports

__getattr__ = lazy_exports(__name__)
