"""`NAME@FILE`: an architecture of torchvision, timm or this package by its name, with weights from a file."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from robust.foreign.loaded import ForeignError, Loaded, Source, digest_of
from robust.foreign.weights import put, read_weights


def load(source: Source) -> Loaded:
    """Build the architecture for as many classes as the weights have, and fill it.

    `timm:NAME@FILE` and `torchvision:NAME@FILE` say which library is meant; without a prefix torchvision is asked
    first, then timm, if it is installed.

    Raises:
        ForeignError: if no library has the name, or the weights are another network's.
    """
    name, _, file = source.text.rpartition("@")
    path = source.path(file)
    weights = read_weights(source, path)
    library, _, bare = name.rpartition(":")
    module, where = _built(library, bare, weights)
    put(module, weights, path)
    return Loaded(module.eval(), f"{bare} of {where}, weights from {path.name}", digest_of(path, also=name))


def _built(library: str, name: str, weights: Mapping[str, Tensor]) -> tuple[nn.Module, str]:
    if library not in ("", "torchvision", "timm"):
        raise ForeignError(f"{library}:{name}: the libraries are torchvision and timm")
    from robust.torchvision import load as torchvision

    names = [] if library == "timm" else torchvision().models.list_models()
    if name in names:
        build = partial(torchvision().models.get_model, name, weights=None)
        return _for_classes(build, weights), "torchvision"
    try:
        import timm
    except ModuleNotFoundError as error:
        raise _unknown(name, names, "in torchvision; timm is not installed: pip install timm") from error
    if not timm.is_model(name):
        raise _unknown(name, [*names, *timm.list_models()], "in timm" if library else "in torchvision or timm")
    return _for_classes(partial(timm.create_model, name, pretrained=False), weights), "timm"


def _for_classes(build: Callable[..., nn.Module], weights: Mapping[str, Tensor]) -> nn.Module:
    """The network with the number of classes that the weights of its last linear layer have."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about initial weights, which are overwritten
        network = build()
        last = [name for name, part in network.named_modules() if isinstance(part, nn.Linear)]
        found = weights.get(f"{last[-1]}.weight") if last else None
        if found is not None and len(found) != network.get_submodule(last[-1]).out_features:
            network = build(num_classes=len(found))
    return network


def _unknown(name: str, names: list[str], where: str) -> ForeignError:
    import difflib

    near = " or ".join(difflib.get_close_matches(name, list(dict.fromkeys(names)), n=3))
    return ForeignError(f"no architecture is called {name!r} {where}{f'; did you mean {near}?' if near else ''}")
