"""Ranks: the processes that share one training, each with its part of every batch on a device of its own.

Data-parallel training on `torch.distributed`: every rank holds the whole network, takes the gradient of its part of the
batch, and the gradients are averaged with the part's share of the samples as weight, so that a part that is one sample
short counts one sample less. All ranks then take the same step. What a sample meets is drawn from (seed, sample id), so
it does not know which rank it is on, and the weights are those of one process up to the order of summation.

Why not `DistributedDataParallel`: it excludes `torch.autograd.grad` through the network it wraps, which every inner
attack and double backpropagation takes, and it weighs all ranks alike. One sum over one flat buffer after the backward
pass has neither limit; what it gives up is the overlap of communication with the backward pass.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from robust.classifier import Classifier
from robust.objectives.objective import Diverged, Objective

PATIENCE = timedelta(minutes=10)  # for a rank that hangs; one that ends is noticed at once


@dataclass(frozen=True)
class Ranks:
    """One process's place among those that share a training; by default it is alone.

    Every method that communicates must be called by all ranks, in the same order.

    Attributes:
        rank: 0 <= rank < count; rank 0 writes checkpoints, logs and results.
        count: how many there are.
        device: where this rank computes and where its messages lie; None for a process that is alone.
    """

    rank: int = 0
    count: int = 1
    device: torch.device | None = None

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def check(self, objective: Objective, samples: int) -> None:
        """Refuse a training that these ranks cannot do.

        Args:
            objective: its `training.ranks` must be `count`.
            samples: in a batch.

        Raises:
            ValueError: naming the setting and the remedy.
        """
        asked = objective.training.ranks
        if asked != self.count:
            raise ValueError(
                f"{objective.name}: training.ranks is {asked}, and {self.count} process(es) train; start {asked} with "
                "torchrun, as the training task does, or set training.ranks to 1"
            )
        if samples < self.count:
            raise ValueError(
                f"{objective.name}: {self.count} ranks cannot share a batch of {samples}; lower training.ranks"
            )

    def prepared(self, classifier: Classifier) -> Classifier:
        """The classifier, ready for training in parts: BatchNorm takes its statistics over all ranks.

        Raises:
            ValueError: for Dropout, which draws by the place in the batch and not by the sample; and for BatchNorm
                on the CPU, where torch cannot share the statistics.
        """
        if self.count == 1:
            return classifier
        modules = list(classifier.modules())
        if any(isinstance(module, _DropoutNd) and module.p > 0 for module in modules):
            raise ValueError("training.ranks: Dropout draws by place in the batch; set dropout to 0, or ranks to 1")
        if any(isinstance(module, _BatchNorm) for module in modules):
            if self.device is None or self.device.type != "cuda":
                raise ValueError(
                    "training.ranks: BatchNorm needs the statistics of the whole batch, which torch shares between "
                    "GPUs only; take a network without it (norm: group, where the model has the field), or ranks: 1"
                )
            classifier.module = nn.SyncBatchNorm.convert_sync_batchnorm(classifier.module)
        return classifier

    def part(self, samples: int) -> slice:
        """Which of so many samples are this rank's: neighbours, as many as another rank's or one less."""
        return slice(samples * self.rank // self.count, samples * (self.rank + 1) // self.count)

    def average(self, gradients: Iterable[Tensor], share: float) -> None:
        """Put sum_r share_r g_r, the gradient of the whole batch, into the gradients, in place.

        Args:
            gradients: those of the mean loss over this rank's part.
            share: samples in this rank's part, over samples in the batch.
        """
        found = list(gradients)
        if self.count == 1 or not found:
            return
        flat = torch.cat([gradient.flatten() for gradient in found]).mul_(share)
        dist.all_reduce(flat)
        for gradient, averaged in zip(found, flat.split([gradient.numel() for gradient in found])):
            gradient.copy_(averaged.view_as(gradient))

    def mean(self, terms: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
        """The terms of the whole batch from those of the parts: float64 scalars, sum_r share_r t_r."""
        if self.count == 1:
            return dict(terms)
        values = torch.stack([value.detach().double().to(self.device) for value in terms.values()]).mul_(share)
        dist.all_reduce(values)
        return dict(zip(terms, values))

    def total(self, *numbers: int) -> list[int]:
        """The sum over ranks of each number."""
        if self.count == 1:
            return list(numbers)
        values = torch.tensor(numbers, dtype=torch.int64, device=self.device)
        dist.all_reduce(values)
        return [int(value) for value in values]

    def any(self, *flags: bool) -> list[bool]:
        """Whether some rank says so, for each flag: what one rank wants to do, all do at the same step."""
        return [count > 0 for count in self.total(*map(int, flags))]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Around what may diverge: where one rank raises `Diverged`, all do, with its words."""
        if self.count == 1:
            yield
            return
        own = ""
        try:
            yield
        except Diverged as diagnosis:
            own = f"{diagnosis} (rank {self.rank})"
        if not self.any(bool(own))[0]:
            return
        said: list[str] = [""] * self.count
        dist.all_gather_object(said, own)
        raise Diverged("; ".join(filter(None, said)))


ALONE = Ranks()


@contextmanager
def joined(device: str | torch.device) -> Iterator[Ranks]:
    """This process among those that `torchrun` started with it: nccl between GPUs, gloo otherwise.

    Args:
        device: where this rank computes; on GPUs one of its own for each rank.

    Raises:
        ValueError: if this process was not started by torchrun.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise ValueError("RANK and WORLD_SIZE are not set: start this process with torchrun")
    place = torch.device(device)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    dist.init_process_group("nccl" if place.type == "cuda" else "gloo", timeout=PATIENCE)
    yield Ranks(dist.get_rank(), dist.get_world_size(), place)
    dist.destroy_process_group()  # not after an error: it would wait for ranks that are gone
