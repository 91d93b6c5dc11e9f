"""Preparation: how images in [0,1] [N,C,H,W] become what a foreign network expects, and its answer becomes logits."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.foreign.black_box import BlackBox, plain

Answer = Literal["logits", "labels", "softmax", "log-softmax", "softmax twice", "log-softmax of softmax"]
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


class Preparation(BaseModel):
    """What stands between the images and the network.

    Attributes:
        shape: (C, H, W) of the images; data of another shape are converted, so eps is measured at this shape.
        mean, std: per channel in units of the [0,1] image; empty for none. A range of 0 to 255 is a std of 1/255.
        bgr: the network wants blue first.
        grey: the network was trained on grey images: each channel is given the luma.
        channels_last: the network wants [N,H,W,C].
        answer: what the network returns.
        columns: which of its outputs belongs to each class of the data; empty for the same order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    shape: tuple[int, int, int]
    num_classes: int = Field(ge=1)
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    bgr: bool = False
    grey: bool = False
    channels_last: bool = False
    answer: Answer = "logits"
    columns: tuple[int, ...] = ()

    def described(self) -> str:
        """For people: `3x32x32, RGB, [N,C,H,W], (x - mean) / std with ..., logits`."""
        channels, height, width = self.shape
        order = "grey" if channels == 1 or self.grey else ("BGR" if self.bgr else "RGB")
        scale = "[0,1]"
        if self.std:
            scale = f"(x - mean) / std with mean {_numbers(self.mean)}, std {_numbers(self.std)}"
        layout = "[N,H,W,C]" if self.channels_last else "[N,C,H,W]"
        return f"{channels} x {height} x {width}, {order}, {layout}, {scale}, returns {self.answer}"


class Prepared(nn.Module):
    """A network behind its preparation: normalised RGB images [N,C,H,W] in, logits [N,K] out."""

    def __init__(self, module: nn.Module, preparation: Preparation) -> None:
        super().__init__()
        self.module = module
        self.preparation = preparation
        self.random = bool(getattr(module, "random", False))

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the data's classes."""
        images = images.flip(1) if self.preparation.bgr else images
        images = images.permute(0, 2, 3, 1) if self.preparation.channels_last else images
        logits = as_logits(plain(self.module(images)), self.preparation.answer, self.preparation.num_classes)
        return logits[:, list(self.preparation.columns)] if self.preparation.columns else logits


class Luma(nn.Module):
    """Colour images whose three channels are all the brightness."""

    def forward(self, images: Tensor) -> Tensor:
        """[N,3,H,W] in and out."""
        weights = images.new_tensor(LUMA).view(1, 3, 1, 1)
        return (images * weights).sum(1, keepdim=True).expand_as(images)


def prepared(module: nn.Module, preparation: Preparation) -> Classifier:
    """The classifier that is attacked: images in [0,1] of the preparation's shape to logits of the data's classes.

    Where nothing but a normalisation is needed the network itself is inside, so that bounds can look into it.
    """
    module, answer = without_softmax(module, preparation)
    bare = not (preparation.bgr or preparation.channels_last or preparation.columns) and answer == "logits"
    body: nn.Module = Prepared(module, preparation.model_copy(update={"answer": answer}))
    if bare and not isinstance(module, BlackBox) and _returns_tensor(module, preparation):
        if isinstance(module, Classifier) and not preparation.std and not preparation.grey:
            return module
        body = module
    classifier = Classifier(body, preparation.mean or None, preparation.std or None, preparation.num_classes)
    if not preparation.grey:
        return classifier
    return Classifier(nn.Sequential(Luma(), classifier), num_classes=preparation.num_classes)


def as_logits(answer: Tensor, kind: Answer, num_classes: int) -> Tensor:
    """Scores whose softmax is the network's opinion, [N,K].

    softmax p: log p. log-softmax: itself. A softmax of p has log q = p - c; since p sums to 1 over K classes,
    p = log q - (sum log q - 1) / K, and log p are the logits.
    """
    tiny = torch.finfo(answer.dtype).tiny if answer.is_floating_point() else 0.0
    if kind == "labels":
        return nn.functional.one_hot(answer.long().flatten(), num_classes).to(torch.get_default_dtype())
    if kind == "softmax":
        return answer.clamp_min(tiny).log()
    if kind == "softmax twice":
        return inner_probabilities(answer.clamp_min(tiny).log()).clamp_min(tiny).log()
    if kind == "log-softmax of softmax":
        return inner_probabilities(answer).clamp_min(tiny).log()
    return answer


def inner_probabilities(log_softmax: Tensor) -> Tensor:
    """The p of which these [N,K] are the log-softmax, if p are probabilities."""
    return log_softmax - (log_softmax.sum(1, keepdim=True) - 1) / log_softmax.shape[1]


@torch.no_grad()
def without_softmax(module: nn.Module, preparation: Preparation) -> tuple[nn.Module, Answer]:
    """The network without its last softmax layer, where it has one that can be taken off; else as it is.

    A logarithm undoes a softmax too, but not where float32 has rounded it to 0 or 1, and there the gradient is lost.
    """
    if preparation.answer not in ("softmax", "log-softmax"):
        return module, preparation.answer
    layers = [(n, m) for n, m in module.named_modules() if n and isinstance(m, (nn.Softmax, nn.LogSoftmax))]
    if not layers or isinstance(module, torch.jit.ScriptModule):
        return module, preparation.answer
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    bare = copy.deepcopy(module, shared)  # the caller's network stays as it is; only its structure is copied
    name, layer = layers[-1]
    parent, _, child = name.rpartition(".")
    images = torch.rand(2, *preparation.shape, generator=torch.Generator().manual_seed(0))
    images = images.permute(0, 2, 3, 1) if preparation.channels_last else images
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    before = plain(module(images.to(device)))
    setattr(bare.get_submodule(parent), child, nn.Identity())
    after = plain(bare(images.to(device)))
    if torch.allclose(layer(after), before, rtol=1e-4, atol=1e-6):
        return bare, "logits"
    return module, preparation.answer


@torch.no_grad()
def _returns_tensor(module: nn.Module, preparation: Preparation) -> bool:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    found = module(torch.zeros(1, *preparation.shape, device=device, dtype=dtype))
    return isinstance(found, Tensor) and found.dim() == 2


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.4g}" for value in values)
