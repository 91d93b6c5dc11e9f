"""The likelihood of a small normalising flow: what a generative model that never saw a label says about an image."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from robust.classifier import Classifier
from robust.detection.detector import Fitted, ImageDetector
from robust.randomness import Randomness, generator

BATCH = 250  # images scored at once
SQUEEZE = 0.05  # pixels are moved into [SQUEEZE, 1 - SQUEEZE] before the logit, which is infinite at 0 and 1


class FlowLikelihood(ImageDetector):
    """log p(x) of a Real NVP that is fitted to training images by maximum likelihood; in nats.

    Dinh et al. 2017, arXiv 1605.08803: z = g(x) by `couplings` affine coupling layers, y_b = x_b exp(s(x_a)) + t(x_a),
    y_a = x_a, whose halves a and b (the two colours of a checkerboard, over all channels) change places from layer to
    layer; log p(x) = log N(g(x); 0, I) + log |det dg/dx| (eq. 3). s and t share a network of two hidden layers. Pixels
    are dequantised by uniform noise of one grey level while fitting, by its middle while scoring, and pass a logit.

    The classifier is not looked at: this is the Glow row of the JEM tables (arXiv 1912.03263, table 3) at a size that
    a minute on one core can fit. Such likelihoods are known to rise on smooth images of other sets (Nalisnick et al.
    2019, arXiv 1810.09136).
    """

    name: ClassVar[str] = "flow-likelihood"
    family: ClassVar[str] = "density"
    source: ClassVar[str] = "arXiv 1605.08803"

    couplings: int = Field(default=6, ge=2, description="affine coupling layers")
    hidden: int = Field(default=256, ge=1, description="units of each of the two hidden layers of a coupling")
    epochs: int = Field(default=8, ge=1, description="passes over the training images")
    samples: int = Field(default=10_000, ge=1, description="training images that are fitted at most")
    batch_size: int = Field(default=100, ge=1)
    lr: float = Field(default=1e-3, gt=0, description="Adam's peak learning rate; falls to 0 along a cosine")
    seed: int = Field(default=0, ge=0, lt=2**53, description="keys initialisation, order and dequantisation")

    def fit_images(self, classifier: Classifier, images: Tensor, labels: Tensor, rng: Randomness) -> Fitted:
        """The flow's weights, by their names."""
        flow = self.flow(images)
        images = images[: self.samples]
        size = min(self.batch_size, len(images))
        total = self.epochs * (len(images) // size)
        optimizer = torch.optim.Adam(flow.parameters(), self.lr)
        with torch.enable_grad():
            for step in range(total):
                epoch, place = divmod(step, len(images) // size)
                order = generator(self.seed, self.name, "order", epoch).permutation(len(images))
                batch = images[torch.from_numpy(order[place * size : (place + 1) * size])]
                draws = generator(self.seed, self.name, "dequantise", step).random(tuple(batch.shape))
                optimizer.param_groups[0]["lr"] = self.lr * (1 + math.cos(math.pi * step / total)) / 2
                optimizer.zero_grad()
                (-flow(batch, torch.as_tensor(draws).to(batch)).mean() / batch[0].numel()).backward()
                nn.utils.clip_grad_norm_(flow.parameters(), 1.0)
                optimizer.step()
        return {name: value.detach() for name, value in flow.state_dict().items()}

    def score_images(self, classifier: Classifier, images: Tensor, fitted: Fitted, rng: Randomness) -> Tensor:
        """log p(x), [N], computed in float64: a sum over all pixels, which float32 rounds as the batch has it."""
        images = images.double()
        flow = self.flow(images)
        flow.load_state_dict(fitted)
        with torch.no_grad():
            parts = [flow(part, torch.full_like(part, 0.5)) for part in images.split(BATCH)]
        return torch.cat(parts) if parts else images.new_zeros(0)

    def flow(self, images: Tensor) -> RealNVP:
        """A freshly initialised flow for images of this shape, type and device."""
        draws = generator(self.seed, self.name, "weights")
        return RealNVP(images.shape[1:], self.couplings, self.hidden, draws).to(images)


class RealNVP(nn.Module):
    """Affine couplings on flattened images; `forward` gives log p(x)."""

    def __init__(self, shape: torch.Size, couplings: int, hidden: int, draws: np.random.Generator) -> None:
        super().__init__()
        _, height, width = shape
        board = (torch.arange(height)[:, None] + torch.arange(width)) % 2
        colour = board.expand(*shape).reshape(-1)
        self.halves = [(colour == side).nonzero().flatten() for side in (0, 1)]
        sizes = [len(half) for half in self.halves]
        self.networks = nn.ModuleList(
            nn.Sequential(
                _linear(sizes[layer % 2], hidden, draws),
                nn.ReLU(),
                _linear(hidden, hidden, draws),
                nn.ReLU(),
                _linear(hidden, 2 * sizes[1 - layer % 2], draws, scale=0.0),  # the flow starts as the identity
            )
            for layer in range(couplings)
        )
        self.shift = nn.Parameter(torch.zeros(len(colour)))
        self.log_scale = nn.Parameter(torch.zeros(len(colour)))

    def forward(self, images: Tensor, dequantised: Tensor) -> Tensor:
        """log p(x) [N] of images [N,C,H,W] in [0,1]; `dequantised` in [0,1] says where in its grey level a pixel is."""
        pixels = (images * 255 + dequantised).flatten(1) / 256
        squeezed = SQUEEZE + (1 - 2 * SQUEEZE) * pixels.clamp(0, 1)
        z = squeezed.logit()
        # d logit(v) / dv = 1 / (v (1 - v)); per pixel of the [0,1] image
        volume = (math.log(1 - 2 * SQUEEZE) - squeezed.log() - (1 - squeezed).log()).sum(1)
        z, volume = (z + self.shift) * self.log_scale.exp(), volume + self.log_scale.sum()
        for layer, network in enumerate(self.networks):
            given, moved = (self.halves[(layer + side) % 2].to(z.device) for side in (0, 1))
            log_scale, shift = network(z[:, given]).chunk(2, dim=1)
            log_scale = 2 * torch.tanh(log_scale / 2)
            z = z.index_copy(1, moved, z[:, moved] * log_scale.exp() + shift)
            volume = volume + log_scale.sum(1)
        return -0.5 * z.square().sum(1) - z.shape[1] / 2 * math.log(2 * math.pi) + volume


def _linear(fan_in: int, fan_out: int, draws: np.random.Generator, scale: float = 1.0) -> nn.Module:
    layer = nn.utils.skip_init(nn.Linear, fan_in, fan_out)  # torch's global generator is not ours to move
    weights = draws.standard_normal((fan_out, fan_in)) * scale * math.sqrt(2 / fan_in)
    layer.load_state_dict({"weight": torch.as_tensor(weights), "bias": torch.zeros(fan_out)})
    return layer
