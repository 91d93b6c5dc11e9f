"""Weights from a file, read without running code: safetensors, or `torch.load(weights_only=True)`."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from robust.foreign.loaded import ForeignError, Source

NESTS = ("state_dict", "model_state_dict", "model", "net", "weights")  # under what trainers file their weights
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")  # what wrappers put before every name


def read_weights(source: Source, path: Path) -> dict[str, Tensor]:
    """The tensors of a weights file by name, out of the nests and prefixes that trainers put around them.

    Raises:
        ForeignError: if it is damaged, holds no weights, or is a pickle that would run code.
    """
    content: Any = _safetensors(path) if path.suffix == ".safetensors" else unpickled(source, path)
    if isinstance(content, nn.Module):
        content = content.state_dict()
    for _ in range(3):
        nest = next((n for n in NESTS if isinstance(content, Mapping) and _nested(content.get(n))), None)
        if nest is None:
            break
        content = content[nest]
        content = content[0] if isinstance(content, (list, tuple)) else content
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ForeignError(f"{path} holds no weights by name; save model.state_dict()")
    return _bare({str(name): value for name, value in content.items() if isinstance(value, Tensor)})


def unpickled(source: Source, path: Path) -> Any:
    """What `torch.save` wrote; code in the pickle runs only if the user trusts the file.

    Raises:
        ForeignError: naming `--trust FILE` if it would run code, or if it is damaged.
    """
    trusted = source.trusts(path)
    if trusted:
        source.importable()  # the class of a whole model stands in a module of its own
    try:
        return torch.load(path, weights_only=not trusted, map_location="cpu")
    except UnpicklingError as error:
        if not _saved_by_torch(path):  # to trust it would be of no use
            raise ForeignError(f"{path} is no file that torch.save wrote; give the weights' own file") from error
        raise refused(path, error) from error
    except ModuleNotFoundError as error:
        raise ForeignError(
            f"{path} needs the module {error.name!r}, which is neither in {source.folder} nor on PYTHONPATH; put the "
            "file with the model's class there, or save its state_dict"
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, AttributeError, ImportError) as error:
        raise ForeignError(f"{path} cannot be read ({_first_line(error)}); copy it again, or save it again") from error


def _saved_by_torch(path: Path) -> bool:
    """Whether the file begins as an archive or as a pickle does."""
    with path.open("rb") as content:
        return content.read(2).startswith((b"PK", b"\x80"))


def refused(path: Path, error: object = "") -> ForeignError:
    """The refusal to run a pickle."""
    return ForeignError(
        f"{path} is a pickle that runs code when it is loaded ({_first_line(error)}); save its state_dict instead and "
        f"give NAME@{path.name}, or, if you trust whoever made it, add --trust {path}"
    )


def put(module: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load weights into a module.

    Raises:
        ForeignError: naming the first names or shapes that do not fit.
    """
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        lines = [textwrap.shorten(line, 120, placeholder=" …") for line in str(error).splitlines()[1:4]]
        raise ForeignError(
            f"{path} holds the weights of another network; name the one that they were saved from: {' '.join(lines)}"
        ) from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ForeignError(f"{path} is not a readable safetensors file ({error}); copy it again") from error


def _nested(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        value = value[0] if value else None
    return isinstance(value, (Mapping, nn.Module)) and bool(value if isinstance(value, Mapping) else True)


def _bare(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in PREFIXES:
        if weights and all(name.startswith(prefix) for name in weights):
            return _bare({name.removeprefix(prefix): value for name, value in weights.items()})
    return weights


def _first_line(error: object) -> str:
    lines = str(error).strip().splitlines()
    found = next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), lines[0] if lines else "")
    return found.strip()[:160] or type(error).__name__
