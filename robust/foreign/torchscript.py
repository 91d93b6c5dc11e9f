"""A TorchScript archive, as `torch.jit.save` writes it."""

from __future__ import annotations

import warnings

import torch

from robust.foreign.loaded import ForeignError, Loaded, Source, digest_of


def load(source: Source) -> Loaded:
    """The archive's module. Its code is run by TorchScript's interpreter; no Python is unpickled.

    Raises:
        ForeignError: if the archive is damaged.
    """
    path = source.path(source.text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch would have people write other archives
        try:
            module = torch.jit.load(str(path), map_location="cpu")
        except (RuntimeError, ValueError) as error:
            raise ForeignError(f"{path} is not a readable TorchScript archive; save it again") from error
    notes = ("train mode",) if module.training else ()
    return Loaded(module, f"a TorchScript archive, {path.name}", digest_of(path), notes=notes)
