"""The defence contract: a wrapper around a classifier that says how it must be attacked.

A defence declares its randomness (then attacks average over it, EOT) and either stays differentiable or gives a
backward rule (BPDA). What it declares is checked, not believed: `robust.diagnostics.masking` measures both.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from robust.classifier import Classifier
from robust.method import Method


class Defence(Method):
    """Base of all test-time defences."""

    kind: ClassVar[str] = "defence"
    random: ClassVar[bool] = False
    differentiable: ClassVar[bool] = True

    @abstractmethod
    def wrap(self, classifier: Classifier) -> Classifier:
        """The defended classifier, images in [0,1] -> logits."""

    def substitute(self, classifier: Classifier) -> Classifier:
        """What to differentiate instead where the defence itself has no useful gradient; by default the defence."""
        return self.wrap(classifier)
