"""Checkpoints and weights on disk: written whole or not at all, and read without unpickling code.

A file is written under a temporary name, flushed to the disk and renamed, so a kill at any moment leaves the previous
file as it was. Checkpoints are `torch.save` archives read with `weights_only=True`; weights are safetensors.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from safetensors.torch import save as to_safetensors
from torch import Tensor

from robust.classifier import Classifier

Weights = dict[str, Tensor]


class CheckpointError(ValueError):
    """A file is damaged or belongs to something else; the message names it and the remedy."""


def weights_of(classifier: Classifier) -> Weights:
    """A copy on the CPU of every parameter and buffer of the classifier's module, under the module's own names."""
    return {name: value.detach().cpu().clone() for name, value in classifier.module.state_dict().items()}


def save_weights(source: Classifier | Mapping[str, Tensor], path: Path) -> str:
    """Write weights as safetensors; returns the sha256 of the file. Equal weights give equal bytes."""
    weights = weights_of(source) if isinstance(source, Classifier) else source
    content = to_safetensors({name: value.detach().cpu().contiguous().clone() for name, value in weights.items()})
    write_atomically(path, content)
    return hashlib.sha256(content).hexdigest()


def load_weights(classifier: Classifier, path: Path) -> None:
    """Put the weights of a file into the classifier's module, in place.

    Raises:
        CheckpointError: if the file is damaged or its names or shapes are not those of the module.
    """
    try:
        weights = parse_safetensors(Path(path).read_bytes())
        classifier.module.load_state_dict(weights)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}); train the model again") from error
    except RuntimeError as error:
        raise CheckpointError(f"{path} holds the weights of another architecture: {error}") from error


def save_checkpoint(content: Mapping[str, Any], identity: Mapping[str, str], path: Path) -> None:
    """Write a dictionary of tensors, numbers, strings, lists and dictionaries, marked with whose it is."""
    buffer = io.BytesIO()
    torch.save({**content, "identity": dict(identity)}, buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path, identity: Mapping[str, str], device: torch.device | None = None) -> dict[str, Any]:
    """What `save_checkpoint` wrote: tensors of a GPU on `device`, which may be another GPU, those of the CPU there.

    Raises:
        CheckpointError: if the file is not a complete checkpoint, or its identity is another.
    """
    try:
        content = torch.load(path, weights_only=True, map_location=_onto(device) if device else None)
    except (RuntimeError, EOFError, UnpicklingError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path} is not a readable checkpoint ({error}); delete it to train again") from error
    if not isinstance(content, dict) or not isinstance(content.get("identity"), dict):
        raise CheckpointError(f"{path} is not a checkpoint of a training run; delete it to train again")
    other = [name for name, value in identity.items() if content["identity"].get(name) != value]
    if other:
        raise CheckpointError(
            f"{path} belongs to another training (another {', '.join(other)}); choose another folder, or delete it"
        )
    return content


def _onto(device: torch.device) -> Callable[[Any, str], Any]:
    return lambda storage, place: storage if place == "cpu" else storage.to(device=device)


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a restart after a power cut, sees the old content or the new, never a part."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself must survive a power cut
    finally:
        os.close(folder)
