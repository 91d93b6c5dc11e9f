"""The Python version of CIFAR: pickled dictionaries of arrays, read without letting them run anything.

A pickle is a program. This reader allows the four calls that the published files need to rebuild a numpy array and
refuses every other one, so that a file of unknown origin can at worst be damaged.
"""

from __future__ import annotations

import codecs
import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np

from robust.datasets.dataset import DatasetError

# numpy's own rebuilding function, taken from an array because its module is private
REBUILD = np.zeros(0).__reduce__()[0]
ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): REBUILD,
    ("numpy._core.multiarray", "_reconstruct"): REBUILD,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): codecs.encode,  # how Python 3 writes bytes for Python 2
}


class ArrayUnpickler(pickle.Unpickler):
    """An unpickler for dictionaries, lists, numbers, strings, bytes and numpy arrays of bytes; of nothing else."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """One of the allowed calls."""
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks to run {module}.{name}, which no published file does")
        return ALLOWED[module, name]


def read_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a CIFAR pickle, keys as text.

    Raises:
        DatasetError: if the file is damaged or asks to run anything.
    """
    try:
        with open(path, "rb") as file:
            content = ArrayUnpickler(file).load()
    # a damaged pickle can fail in every operation that pickles have
    except (pickle.UnpicklingError, OSError, EOFError, ValueError, TypeError, LookupError, AttributeError,
            OverflowError, MemoryError) as error:  # fmt: skip
        raise DatasetError(f"{path} is damaged: {error}; replace it by the published file") from error
    if not isinstance(content, dict):
        raise DatasetError(f"{path} holds a {type(content).__name__}, not a CIFAR dictionary")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def read_batch(path: Path, labels_key: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Images [N,3,32,32] uint8 and labels [N] int64 of one batch file.

    Raises:
        DatasetError: if the file is damaged or is no CIFAR batch.
    """
    content = read_pickle(path)
    data, labels = content.get("data"), content.get(labels_key)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8 or data.ndim != 2 or data.shape[1] != 3072:
        raise DatasetError(f"{path}: 'data' is not an array of bytes [N,3072]; replace it by the published file")
    if not isinstance(labels, list) or len(labels) != len(data):
        raise DatasetError(
            f"{path}: {labels_key!r} is not a list of {len(data)} labels; replace it by the published file"
        )
    if not all(isinstance(label, int) and 0 <= label < classes for label in labels):
        raise DatasetError(f"{path}: {labels_key!r} holds something other than 0..{classes - 1}")
    return data.reshape(-1, 3, 32, 32), np.array(labels, dtype=np.int64)
