"""Transfer: images crafted on another classifier, without a single query to the one under attack."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, PrivateAttr
from torch import Tensor

from robust.attacks.attack import Attack, Context
from robust.attacks.substitute import named_model
from robust.attacks.wrapper import Wrapper
from robust.classifier import Classifier
from robust.randomness import Randomness


class Transfer(Wrapper):
    """The inner attack run on a surrogate; its images are then judged on the real classifier.

    Papernot et al. 2016, "Transferability in Machine Learning", arXiv 1605.07277. Give the inner attack margin to
    spare (`early_stop: false` where it has the field): images that stop at the surrogate's boundary transfer badly. A
    transfer attack that beats the white-box one is evidence of a masked gradient.

    `bind` brings the surrogate: `Transfer(attack=..., surrogate="cnn").bind(classifier, Context(models={"cnn": net}))`.

    Cost: none to the real classifier; the surrogate's passes are not counted.
    """

    name = "transfer"
    family = "black box"
    source = "arXiv 1605.07277"
    needs: ClassVar[tuple[str, ...]] = ("models",)

    surrogate: str = Field(default="surrogate", description="name of another model of the study")
    _model: Classifier | None = PrivateAttr(default=None)

    def bind(self, classifier: Classifier, context: Context) -> Attack:
        """With the surrogate from the context, to which the inner attack is bound.

        Raises:
            ValueError: if the context has no model of that name.
        """
        model = named_model(context, self.surrogate, self.name)
        bound = self.model_copy(update={"attack": self.attack.bind(model, context)})
        bound._model = model
        return bound

    def view(self, classifier: Classifier) -> Classifier:
        """The surrogate."""
        if self._model is None:
            raise ValueError(
                f"transfer: the model {self.surrogate!r} was not brought; call bind with it in the context"
            )
        return self._model

    def perturb(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Images [N,C,H,W] crafted on the surrogate, whose weights and mode are left as they were."""
        with self.view(classifier).frozen():
            return super().perturb(classifier, images, labels, rng)

    def passes(self, num_classes: int) -> tuple[int, int]:
        """None to the real classifier."""
        return 0, 0
