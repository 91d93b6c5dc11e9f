"""Attack through a substitute: another differentiable copy gives the gradient, the real classifier the values."""

from __future__ import annotations

from pydantic import Field, PrivateAttr

from robust.attacks.attack import Attack, Context
from robust.attacks.wrapper import StraightThrough, Wrapper, declared_view
from robust.classifier import Classifier


class Substitute(Wrapper):
    """The inner attack with the real classifier's logits and the gradient of a differentiable stand-in.

    Athalye et al. 2018, arXiv 1802.00420 (attacks through an approximation of the whole network). The stand-in is a
    fixed-step copy of an adaptive solver, the undefended twin, or any other model of the study: its name in `model`, or
    the view `substitute` that the classifier declares. Losses, early stops and the final judgement see the real one.

    Cost: one more forward pass for each gradient.
    """

    name = "substitute"
    family = "wrapper"
    source = "arXiv 1802.00420"

    model: str | None = Field(default=None, description="a model of the study; None for the declared substitute")
    _stand_in: Classifier | None = PrivateAttr(default=None)

    def bind(self, classifier: Classifier, context: Context) -> Attack:
        """With the stand-in called `model` from the context.

        Raises:
            ValueError: if the context has no model of that name.
        """
        bound = super().bind(classifier, context)
        if isinstance(bound, Substitute) and self.model is not None:
            bound._stand_in = named_model(context, self.model, self.name)
        return bound

    def view(self, classifier: Classifier) -> Classifier:
        """Values of `classifier`, gradient of the stand-in."""
        if self._stand_in is not None:
            return StraightThrough(classifier, self._stand_in)
        if self.model is not None:
            raise ValueError(f"substitute: the model {self.model!r} was not brought; call bind with it in the context")
        remedy = "name a model of the study in the field 'model'"
        return StraightThrough(classifier, declared_view(classifier, "substitute", remedy))

    def passes(self, num_classes: int) -> tuple[int, int]:
        """Each gradient takes a forward pass of both classifiers."""
        forward, backward = self.attack.passes(num_classes)
        return forward + backward, backward


def named_model(context: Context, name: str, who: str) -> Classifier:
    """The model called `name`.

    Raises:
        ValueError: if there is none; the message lists those there are.
    """
    if name not in context.models:
        raise ValueError(f"{who}: there is no model {name!r}; there are {', '.join(context.models) or 'none'}")
    return context.models[name]
