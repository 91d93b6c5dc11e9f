"""The steady-state loss of TisODE, added to whatever objective trains the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field, PlainSerializer, model_validator
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.method import Method
from robust.models.ode_solver import IntegralCurve, SolverError
from robust.objectives.gaussian_noise import GaussianNoise
from robust.objectives.objective import Batch, Diverged, Loss, Objective, State
from robust.randomness import Randomness

# written out with its name and every field, as a study file would say it
Base = Annotated[Objective, PlainSerializer(Method.settings, return_type=dict[str, Any])]
WATCHED = 128  # training images whose steady-state loss the history shows after each epoch
MassNorm = Literal["l1-mean", "l2"]


class TisODE(Objective):
    """The steady-state loss on top of another objective: integral curves are to be at rest after the final time.

    Yan et al. 2020, arXiv 1910.05513, section 4:  L = L_base + weight * L_ss with
    L_ss = 1/N sum_n | integral over the window of |f(z_n(t))| dt |, |f| element by element, `window` = [T, 2T]. `l2`
    takes the Euclidean norm of each sample, as written; `l1-mean` the mean over all elements, as coded, and is the
    default because the published weight belongs to it. The authors' code starts after five epochs, its logged run has
    the window [0.9, 1.5] and its attack script [0.75, 1.05]; the paper's [1, 2] is the default here.

    `base` is any objective (its loss, attack and selection): the passes it makes through the network in train mode are
    the ones that are weighed, so adversarial training with TisODE weighs the attacked images. Costs no more passes,
    but each follows the curve to the window's end: with Euler and T = 1, twice the evaluations of f.
    """

    name: ClassVar[str] = "tisode"
    family: ClassVar[str] = "neural ODE"
    source: ClassVar[str] = "arXiv 1910.05513"

    base: Base = Field(default=GaussianNoise(), description="the objective that the loss is added to")
    weight: float = Field(default=0.01, ge=0, description="weight of the steady-state loss")
    window: tuple[float, float] = Field(default=(1.0, 2.0), description="first and last time of the integral of |f|")
    norm: MassNorm = Field(default="l1-mean", description="l1-mean (as coded) or l2 (as written)")
    first_epoch: int = Field(default=5, ge=0, description="epochs trained on the base alone before the loss sets in")

    @model_validator(mode="before")
    @classmethod
    def _training_of_the_base(cls, data: Any) -> Any:
        """One set of optimiser settings: the base's where none stand beside it."""
        if not isinstance(data, Mapping):
            return data
        base = data.get("base", GaussianNoise())
        if not isinstance(base, Objective):
            raise ValueError("base must be an objective, for example {name: gaussian-noise} or {name: pgd-at}")
        if "training" not in data:
            return {**data, "training": base.training}
        return data

    @model_validator(mode="after")
    def _window_has_a_length(self) -> TisODE:
        low, high = self.window
        if not 0 <= low < high:
            raise ValueError(f"window must be two rising times from 0 on, such as [1, 2], got [{low:g}, {high:g}]")
        return self

    @property
    def whole_batch(self) -> str:
        """The base's."""
        return self.base.whole_batch

    def start(self, classifier: Classifier, images: Tensor, seed: int) -> State:
        """The base's state.

        Raises:
            ValueError: if the network has no integral curve.
        """
        integral_curve(classifier)
        return self.base.start(classifier, images, seed)

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """The base's loss plus weight times L_ss; terms: the base's, its loss, and L_ss once it is in force."""
        try:
            if batch.epoch < self.first_epoch:
                return self.base.loss(classifier, batch, state)
            with integral_curve(classifier).recording(*self.window) as recorded:
                base = self.base.loss(classifier, batch, state)
                steady = torch.stack([self.reduced(mass) for mass in recorded]).mean()
        except SolverError as error:
            raise Diverged(str(error)) from error
        terms = {**base.terms, "base_loss": base.total.detach(), "steady_state": steady.detach()}
        return Loss(base.total + self.weight * steady, terms)

    def reduced(self, mass: Tensor) -> Tensor:
        """L_ss of the integrals of |f|, [N,C,H,W] -> a scalar."""
        return steady_state_loss(mass, self.norm)

    def before_step(self, classifier: Classifier, state: State) -> None:
        """The base's."""
        self.base.before_step(classifier, state)

    def after_step(self, classifier: Classifier, state: State) -> None:
        """The base's."""
        self.base.after_step(classifier, state)

    def selection(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """The base's."""
        return self.base.selection(classifier, images, labels, rng)

    def after_epoch(self, classifier: Classifier, state: State, train_set: Dataset) -> dict[str, float]:
        """The base's, and L_ss over the first 128 training images: the same ones in every epoch, from the first on."""
        images = train_set.batch(slice(0, WATCHED))[0].to(classifier.device, classifier.dtype)
        with classifier.frozen(), torch.no_grad():
            mass = masses(classifier, images, *self.window)
        own = {"steady_state_watched": float(self.reduced(mass))}
        return {**self.base.after_epoch(classifier, state, train_set), **own}


def steady_state_loss(mass: Tensor, norm: MassNorm) -> Tensor:
    """L_ss of integrals of |f| [N,C,H,W]: the mean over all elements, or the mean Euclidean norm of a sample."""
    return mass.mean() if norm == "l1-mean" else torch.linalg.vector_norm(mass.flatten(1), dim=1).mean()


def masses(classifier: Classifier, images: Tensor, low: float, high: float) -> Tensor:
    """Integrals of |f| over [low, high] on the curves of these images, [N,C,H,W] of the map."""
    curve, taken = integral_curve(classifier), list[Tensor]()
    hook = curve.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))
    try:
        classifier(images)
    finally:
        hook.remove()
    return curve.with_mass(taken[0], low, high)[1]


def integral_curve(classifier: nn.Module) -> IntegralCurve:
    """The integral curve inside a network.

    Raises:
        ValueError: if there is none.
    """
    found = [module for module in classifier.modules() if isinstance(module, IntegralCurve)]
    if not found:
        raise ValueError(
            "the steady-state loss needs a network with an integral curve, such as the models odenet and tisode; "
            "train this one with the base objective alone"
        )
    return found[0]
