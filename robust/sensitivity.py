"""How fast loss and logits change with the image: per-sample gradient norms, with or without a graph behind them.

With `create_graph` the norms can themselves be differentiated with respect to the weights (double backpropagation,
exact): objectives penalise them so. Without it they are measurements.
"""

from __future__ import annotations

import torch
from torch import Tensor

from robust.classifier import Classifier
from robust.losses import Loss, cross_entropy


def loss_gradient_norms(
    classifier: Classifier,
    images: Tensor,
    labels: Tensor,
    loss: Loss = cross_entropy,
    create_graph: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """|grad_x l(f(x_n), y_n)|_2 of each sample.

    The gradient is that of the SUM of the losses, so each norm is the sample's own, whatever the batch size. (A module
    that mixes samples, such as BatchNorm in train mode, makes the sum's gradient differ from the sample's.)

    Args:
        images: [N,C,H,W]; labels: [N].
        loss: per-sample loss of logits and labels.
        create_graph: keep the graph, so that the norms can be differentiated.

    Returns:
        norms [N], losses [N] and logits [N,K].
    """
    with torch.enable_grad():
        leaf = images.detach().requires_grad_(True)
        logits = classifier(leaf)
        losses = loss(logits, labels)
        (gradient,) = torch.autograd.grad(losses.sum(), leaf, create_graph=create_graph, retain_graph=True)
    return torch.linalg.vector_norm(gradient.flatten(1), dim=1), losses, logits


def jacobian_norms(classifier: Classifier, images: Tensor, create_graph: bool = False) -> tuple[Tensor, Tensor]:
    """|J(x_n)|_{2,inf} = max_k |grad_x f_k(x_n)|_2 of each sample: the l2 -> linf Lipschitz constant of f at x_n.

    Costs one backward pass a class.

    Returns:
        norms [N] and logits [N,K].
    """
    with torch.enable_grad():
        leaf = images.detach().requires_grad_(True)
        logits = classifier(leaf)
        rows = [
            torch.autograd.grad(column.sum(), leaf, create_graph=create_graph, retain_graph=True)[0].flatten(1)
            for column in logits.unbind(1)
        ]
    return torch.linalg.vector_norm(torch.stack(rows), dim=2).amax(0), logits
