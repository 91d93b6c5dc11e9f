"""`module:function`: a factory that returns a model, a model itself, or a function that returns scores or labels."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from robust.foreign.black_box import BlackBox
from robust.foreign.loaded import ForeignError, Loaded, Source, mode_notes
from robust.torchvision import beside_torchvision

# what somebody's code raises when it is wrong; anything else is no fault of theirs and stays as it is
FAULTS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, OSError, RuntimeError,
    SyntaxError, TypeError, ValueError,
)  # fmt: skip


def load(source: Source) -> Loaded:
    """Import the module from the source's folder or PYTHONPATH, and make the model.

    A function or class without required arguments is called and must return a `torch.nn.Module` or a function; a
    function of one argument is taken as the model: images in, scores or labels out.

    Raises:
        ForeignError: if there is no such module or name, if its code fails, or if what comes of it is no model.
    """
    name, _, attribute = source.text.partition(":")
    source.importable()
    try:
        found: Any = beside_torchvision(lambda: importlib.import_module(name))
    except FAULTS as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is None or not (name == missing or name.startswith(missing + ".")):
            raise _fault(source.text, error) from error
        raise ForeignError(f"{source.text}: there is no module {name!r} in {source.folder} or on PYTHONPATH") from error
    here = source.folder / f"{name.replace('.', '/')}.py"
    if here.is_file() and Path(found.__file__ or "").resolve() != here.resolve():
        raise ForeignError(f"{source.text}: {name} was imported from {found.__file__} already; rename {here}")
    for part in attribute.split("."):
        if not hasattr(found, part):
            names = ", ".join(n for n, v in vars(found).items() if callable(v) and not n.startswith("_"))
            raise ForeignError(f"{source.text}: {name} has no {part!r}; it has {names[:200] or 'no functions'}")
        found = getattr(found, part)
    made = found if isinstance(found, nn.Module) else _made(found, source.text)
    module = made if isinstance(made, nn.Module) else BlackBox(made)
    form = f"{type(made).__name__} from Python" if isinstance(made, nn.Module) else "a Python function"
    return Loaded(module, form, modules=(name,), notes=mode_notes(module))


def _fault(text: str, error: BaseException) -> ForeignError:
    """The error of somebody's code, with the line that raised it."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"  # it names its own
    told = str(error).strip().splitlines() or [""]
    return ForeignError(
        f"{text} raised {type(error).__name__}: {told[0]}{place}; robust --debug evaluate ... shows how it came to that"
    )


def _made(found: Any, text: str) -> nn.Module | Callable[[Any], Any]:
    if not callable(found):
        raise ForeignError(f"{text} is a {type(found).__name__}; name a function that returns a model")
    required = [
        p for p in inspect.signature(found).parameters.values()
        if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    ]  # fmt: skip
    if len(required) == 1 and not inspect.isclass(found):
        return found  # type: ignore[no-any-return]
    if required:
        names = ", ".join(p.name for p in required)
        raise ForeignError(f"{text} needs the arguments {names}; name a function without any, for example one that "
                           "builds the model and loads its weights")  # fmt: skip
    try:
        made = beside_torchvision(found)
    except FAULTS as error:
        raise _fault(text, error) from error
    if not callable(made):
        raise ForeignError(f"{text} returned {type(made).__name__}; it must return a torch.nn.Module or a function")
    return made  # type: ignore[no-any-return]
