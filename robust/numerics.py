"""The surroundings of a long computation: seeded generators, deterministic kernels, thread count, a meter of passes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.randomness import generator

# torch's generators belong to the process: two trainings in its threads would draw from each other
_process = threading.RLock()


@contextmanager
def own_numerics(seed: int, device: torch.device, threads: int | None) -> Iterator[None]:
    """Seeded generators, deterministic convolutions and a thread count; the caller's are put back afterwards.

    They are the process's, so a second thread waits until the first has left.
    """
    with _process, _numerics(seed, device, threads):
        yield


@contextmanager
def _numerics(seed: int, device: torch.device, threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(int(generator(seed, "training").integers(2**62)))
        torch.set_num_threads(threads or before[0])
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before[1:]


@contextmanager
def exact_float32() -> Iterator[None]:
    """No TF32: cuDNN's convolutions take it by default, and a verdict does not rest on ten bits of mantissa."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of torch's global generators, as a checkpoint keeps them."""
    state = {"cpu": torch.get_rng_state()}
    return state | ({"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {})


def set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """Put the global generators where `random_state` found them."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


class Passes:
    """Counts images going forward through a classifier, and gradients coming back."""

    def __init__(self, classifier: Classifier) -> None:
        self.forward, self.backward = 0, 0
        self._handle = classifier.register_forward_hook(self._count)

    def _count(self, module: nn.Module, inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        self.forward += len(logits)
        if logits.requires_grad:
            logits.register_hook(self._count_back)

    def _count_back(self, gradient: Tensor) -> None:
        self.backward += len(gradient)

    def remove(self) -> None:
        """Stop counting."""
        self._handle.remove()
