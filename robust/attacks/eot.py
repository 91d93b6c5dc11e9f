"""EOT: an attack on the mean over a defence's randomness."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from robust.attacks.wrapper import View, Wrapper
from robust.classifier import Classifier


class EOT(Wrapper):
    """Expectation over transformation: the inner attack sees logits and gradients averaged over the randomness.

    Athalye et al. 2018, "Synthesizing Robust Adversarial Examples", arXiv 1707.07397, and "Obfuscated Gradients Give a
    False Sense of Security", arXiv 1802.00420, section 4.2: E_t f(t(x)) and its gradient are estimated by the mean over
    `draws` calls. It is meant for a classifier that declares itself random; on a deterministic one it only costs more.

    Cost: `draws` times the inner attack's passes; memory likewise.
    """

    name = "eot"
    family = "wrapper"
    source = "arXiv 1707.07397"

    draws: int = Field(default=20, ge=1, description="calls averaged; 20 as in the rand version of AutoAttack")

    def view(self, classifier: Classifier) -> Classifier:
        """The mean of `draws` calls."""
        return Averaged(classifier, self.draws)

    def passes(self, num_classes: int) -> tuple[int, int]:
        """`draws` times the inner attack's."""
        forward, backward = self.attack.passes(num_classes)
        return self.draws * forward, self.draws * backward


class Averaged(View):
    """Mean logits over several calls, each of which draws its own randomness.

    Args:
        classifier: a random classifier.
        draws: calls averaged, packed in one pass.
    """

    def __init__(self, classifier: Classifier, draws: int) -> None:
        super().__init__(classifier)
        self.draws = draws

    def forward(self, images: Tensor) -> Tensor:
        """Mean logits [N,K]."""
        packed: Tensor = self.inner(images.repeat(self.draws, 1, 1, 1))
        return packed.view(self.draws, len(images), -1).mean(0)

    def select(self, rows: Tensor) -> Averaged:
        """The same mean for some rows."""
        return Averaged(self.inner.select(rows), self.draws)
