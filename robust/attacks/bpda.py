"""BPDA: an attack through a step without useful gradient, by the backward rule that the defence declares."""

from __future__ import annotations

from robust.attacks.wrapper import Wrapper, declared_view
from robust.classifier import Classifier


class BPDA(Wrapper):
    """Backward pass differentiable approximation: true values forward, the declared rule backward.

    Athalye et al. 2018, "Obfuscated Gradients Give a False Sense of Security", arXiv 1802.00420, section 4.1: for
    f(g(x)) with a step g that has no useful gradient, the forward pass uses g and the backward pass a differentiable
    h(x) ~ g(x), often the identity. The classifier declares the pair as its view `bpda`.

    Cost: the inner attack's passes.
    """

    name = "bpda"
    family = "wrapper"
    source = "arXiv 1802.00420"

    def view(self, classifier: Classifier) -> Classifier:
        """The classifier's own `bpda` view."""
        return declared_view(classifier, "bpda", "a defence declares its rule in Preprocessing.backward")
