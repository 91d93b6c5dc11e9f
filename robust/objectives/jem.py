"""JEM: a classifier trained at the same time as a density of images, by Langevin chains that a replay buffer keeps."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.nn import functional as F

from robust.classifier import Classifier
from robust.datasets.dataset import Dataset
from robust.energy import Langevin, Walk, log_density, to_unit_noise
from robust.objectives.objective import Batch, Diverged, Loss, Objective, State, Training
from robust.objectives.replay import Start, class_gaussians, fresh, normals, stream
from robust.objectives.sharpness import climb, return_to_rest
from robust.randomness import Randomness


class JEM(Objective):
    """Joint energy model: cross-entropy plus the likelihood of the images under p(x) ~ sum_k exp f(x)_k.

    L = c CE(f(x), y) + d [mean F(x~) - mean F(x')] + r mean [F(x')^2 + F(x~)^2], F(x) = logsumexp_k f(x)_k
    (Grathwohl et al. 2020, arXiv 1912.03263, eq. 2 and algorithm 1). x and x' are two independent batches with noise of
    `input_sigma`; x~ are the ends of `steps` Langevin steps from chains of a replay buffer, each of which begins anew
    with probability `reinit`. c = `classification` (0 leaves p(x) alone, as IGEBM does), d = `density`, r = `penalty`.
    Costs `steps` + 3 forward and backward passes an image. Settings of pixels are for pixels in [-1,1], as published.

    Such trainings diverge. The guard raises `Diverged` where |L| or |F(x') - F(x~)| leave their bounds, and the loop
    goes back to its last good epoch, `training.restarts` times; each restart is counted in the history.

    Published settings, for wrn-28-10 without normalisation on CIFAR-10; where a default differs, it is because theirs
    diverges on small networks too, and both remedies are its authors' own advice:
      official code: penalty 0, input_sigma 0.03, training {epochs: 200, batch_size: 64, lr: 1e-4, schedule: multistep,
        milestones: [160, 180], gamma: 0.3, augment: crop-flip}; the paper: epochs 150, milestones [50, 100]
      JEM++ (Yang & Ji 2021, arXiv 2109.09032): gradient_bound 1, box true, start_from class-gaussian, training
        {optimizer: sgd, lr: 0.1, weight_decay: 4e-4, epochs: 150, milestones: [50, 100, 125], gamma: 0.2}. Its inner
        steps, which keep the gradient of all layers but the first, are another algorithm and not here
      SADA-JEM (Yang et al. 2023, arXiv 2209.07959): steps 5, sigma 0, input_sigma 0, sharpness 0.2, box true,
        start_from class-gaussian, training {milestones: [60, 120, 180], epochs: 200}; images of the p(x) batch are
        augmented like the others here, theirs are not

    MNIST with energy-cnn: step_size 4, buffer 1000, training {epochs: 4, batch_size: 64, lr: 1.5e-3, warmup: 0.1}. With
    step_size 1 at this learning rate the chains fall behind, and the gap goes to the 1 / r that the penalty allows.

    Terms: `f_data` and `f_samples` (mean F, nats), their `gap`, `sampler_gradient` (mean norm of the last step's
    d F / dx, nats per [0,1] pixel), `cross_entropy`, `accuracy`.
    """

    name: ClassVar[str] = "jem"
    family: ClassVar[str] = "energy"
    source: ClassVar[str] = "arXiv 1912.03263"

    training: Training = Training(batch_size=64, lr=1e-4, restarts=10)
    classification: float = Field(default=1.0, ge=0, description="weight of the cross-entropy; 0: p(x) alone")
    density: float = Field(default=1.0, ge=0, description="weight of -log p(x); 0: no chains are run")
    steps: int = Field(default=20, ge=1, description="Langevin steps of each chain in each training step")
    step_size: float = Field(default=1.0, gt=0, description="alpha of a Langevin step, for [-1,1] pixels")
    sigma: float = Field(default=0.01, ge=0, description="deviation of a Langevin step's noise, for [-1,1] pixels")
    gradient_bound: float | None = Field(
        default=None, gt=0, description="largest absolute entry of a Langevin step's gradient, for [-1,1] pixels"
    )
    box: bool = Field(default=False, description="clip the samples to the box after each Langevin step")
    buffer: int = Field(default=10_000, ge=1, description="chains that are kept")
    reinit: float = Field(default=0.05, ge=0, le=1, description="probability that a drawn chain begins anew")
    start_from: Start = Field(default="uniform", description="where chains begin: uniform noise or class-gaussian")
    conditional: bool = Field(
        default=False, description="chains climb f(x)_y of a class of their own: better samples, lower accuracy"
    )
    input_sigma: float = Field(
        default=0.1, ge=0, description="deviation of the noise on training images, for [-1,1] pixels; official 0.03"
    )
    penalty: float = Field(default=0.1, ge=0, description="weight of the squared energies; official 0")
    sharpness: float = Field(
        default=0.0, ge=0, description="rho of SAM: the gradient is taken after a step of this length uphill"
    )
    max_loss: float = Field(default=1e8, gt=0, description="the guard's bound on |L|; official 1e8")
    max_gap: float = Field(default=1e3, gt=0, description="the guard's bound on |F(x') - F(x~)|, in nats")

    @model_validator(mode="after")
    def _something_is_learned(self) -> JEM:
        if self.classification == 0 and self.density == 0:
            raise ValueError("classification and density are both 0: nothing would be learned")
        if self.buffer < self.training.batch_size:
            raise ValueError(f"buffer {self.buffer} holds fewer chains than training.batch_size; raise it")
        return self

    @property
    def sampler(self) -> Langevin:
        """The chains' dynamics."""
        return Langevin(self.steps, self.step_size, self.sigma, self.gradient_bound, self.box)

    def start(self, classifier: Classifier, images: Tensor, seed: int) -> State:
        """The buffer: uniform noise of the images' shape."""
        draws = stream(seed, "buffer", device=images.device)
        shape = (self.buffer, *images.shape[1:])
        return {"buffer": torch.rand(shape, generator=draws, dtype=images.dtype, device=images.device)}

    def before_training(self, state: State, train_set: Dataset) -> None:
        """Fits the class Gaussians, and begins all chains there, where `start_from` asks for them."""
        state["classes"] = len(train_set.classes)
        if self.start_from == "class-gaussian":
            buffer: Tensor = state["buffer"]
            state |= class_gaussians(train_set, buffer)
            owners = torch.arange(len(buffer), device=buffer.device) % state["classes"]
            draws = stream(0, "class-gaussian", train_set.digest, device=buffer.device)
            parts = [fresh(state, part, draws, buffer.shape[1:]) for part in owners.split(500)]
            state["buffer"] = torch.cat(parts)

    @property
    def whole_batch(self) -> str:
        """Why ranks cannot share its batches."""
        return "the chains live in one replay buffer"

    def loss(self, classifier: Classifier, batch: Batch, state: State) -> Loss:
        """Classification, density and penalty of one batch; see the class for the terms."""
        draws = stream(batch.rng.seed, *batch.rng.purpose, "jem", batch.step, device=batch.images.device)
        labelled = self._noisy(batch.images, draws)
        data, walk = None, None
        if self.density:
            if batch.independent is None:
                raise ValueError("jem needs batches with `independent`, as the training loop makes them")
            data = self._noisy(batch.independent("density"), draws)
            walk = self._sample(classifier, state, len(data), draws)
        found = self._total(classifier, labelled, batch.labels, data, walk)
        self._guard(found, batch)
        if self.sharpness:
            climb(classifier, found.total, self.sharpness, state)
            found = Loss(self._total(classifier, labelled, batch.labels, data, walk).total, found.terms)
        return found

    def before_step(self, classifier: Classifier, state: State) -> None:
        """Takes the weights back to where the optimiser left them."""
        return_to_rest(classifier, state)

    def selection(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Tensor:
        """Classified correctly, [N] bool; all of them where nothing is classified, so that the last epoch is kept."""
        if self.classification == 0:
            return torch.ones_like(labels, dtype=torch.bool)
        return super().selection(classifier, images, labels, rng)

    def _noisy(self, images: Tensor, draws: torch.Generator) -> Tensor:
        if not self.input_sigma:
            return images
        return torch.add(images, normals(draws, images), alpha=to_unit_noise(self.input_sigma))

    def _sample(self, classifier: Classifier, state: State, count: int, draws: torch.Generator) -> Walk:
        """Chains drawn from the buffer, walked, and written back."""
        buffer: Tensor = state["buffer"]
        slots = torch.randperm(len(buffer), generator=draws, device=draws.device)[:count]
        classes = slots % state["classes"]  # each place of the buffer belongs to one class
        begins = torch.rand(count, generator=draws, device=draws.device) < self.reinit
        chains = buffer[slots]
        chains[begins] = fresh(state, classes[begins], draws, buffer.shape[1:])
        own = classes if self.conditional else None
        with classifier.frozen():
            walk = self.sampler.walk(classifier, chains, lambda _: normals(draws, chains), own)
        buffer[slots] = walk.images
        return walk

    def _total(
        self, classifier: Classifier, labelled: Tensor, labels: Tensor, data: Tensor | None, walk: Walk | None
    ) -> Loss:
        """The loss at the classifier's present weights."""
        total, terms = labelled.new_zeros(()), {}
        if data is not None and walk is not None:
            real, sampled = log_density(classifier(data)), log_density(classifier(walk.images))
            total = self.density * (sampled.mean() - real.mean())
            total = total + self.penalty * (real.square().mean() + sampled.square().mean())
            terms["f_data"], terms["f_samples"] = real.mean().detach(), sampled.mean().detach()
            terms["gap"] = terms["f_data"] - terms["f_samples"]
            terms["sampler_gradient"] = walk.gradient.flatten(1).norm(dim=1).mean()
        if self.classification:
            logits = classifier(labelled)
            entropy = F.cross_entropy(logits, labels)
            total = total + self.classification * entropy
            terms["cross_entropy"] = entropy.detach()
            terms["accuracy"] = (logits.detach().argmax(1) == labels).to(entropy.dtype).mean()
        return Loss(total, terms)

    def _guard(self, found: Loss, batch: Batch) -> None:
        """Raises `Diverged` where the loss or the gap leaves its bounds, or is not a number."""
        gap = found.terms.get("gap", torch.zeros_like(found.total))
        loss, apart = torch.stack([found.total.detach(), gap]).tolist()
        if not abs(loss) <= self.max_loss or not abs(apart) <= self.max_gap:
            raise Diverged(
                f"jem: loss {loss:.4g} (bound {self.max_loss:g}), gap {apart:.4g} (bound {self.max_gap:g}) in epoch "
                f"{batch.epoch + 1}, step {batch.step + 1}: raise penalty, input_sigma or steps, or lower training.lr"
            )
