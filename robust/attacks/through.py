"""An attack that differentiates through a defence's test-time loop instead of around it."""

from __future__ import annotations

from robust.attacks.wrapper import Wrapper, declared_view
from robust.classifier import Classifier


class Through(Wrapper):
    """Full differentiation through a test-time loop: purification, refinement, a solver, an inner optimisation.

    Such a defence often detaches its loop, so that an ordinary attack takes the gradient around it. Croce et al. 2022,
    "Evaluating the Adversarial Robustness of Adaptive Test-time Defenses", arXiv 2202.13711, section 3: both gradients
    must be tried. The classifier declares the same values with the loop kept in the graph as its view `through`.

    Cost: the inner attack's passes; each keeps the whole loop in memory.
    """

    name = "through"
    family = "wrapper"
    source = "arXiv 2202.13711"

    def view(self, classifier: Classifier) -> Classifier:
        """The classifier's own `through` view."""
        return declared_view(classifier, "through", "its module declares it in gradient_views()")
