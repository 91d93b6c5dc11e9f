"""Method: one published technique with its hyperparameters, as a frozen, validated, serialisable value.

Every attack, objective, model, dataset, detector, calibrator, corruption, certificate, defence and diagnostic is a
subclass in a file of its own. Its fields are the hyperparameters; `name` is what a study file calls it; `family` and
`source` say where it comes from. Nothing registers itself: `robust.registry` finds methods by reading the folders.
"""

from __future__ import annotations

import hashlib
import json
import re
from fractions import Fraction
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema

LABEL = r"^[a-z0-9][a-z0-9-]*$"


def exact(value: Any) -> Fraction:
    """Read a number as the exact fraction a person wrote: `"8/255"`, `"0.3"`, `0.3` (= 3/10), `1`."""
    if isinstance(value, Fraction):
        return value
    if isinstance(value, bool):
        raise ValueError("expected a number or a fraction such as 8/255, got a truth value")
    text = repr(value) if isinstance(value, float) else str(value).strip()
    # digits only, and few of them: a YAML file must not be able to ask for a gigabyte of integer
    if len(text) > 40 or not re.fullmatch(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,2})?(\s*/\s*\d+)?", text):
        raise ValueError(f"{text[:40]!r} is not a number or a fraction; write for example 8/255 or 0.3")
    top, _, bottom = text.partition("/")
    if bottom and int(bottom) == 0:
        raise ValueError(f"{text!r} divides by zero")
    return Fraction(top.strip()) / (int(bottom) if bottom else 1)


def fraction_text(value: Fraction) -> str:
    """How an exact fraction is written everywhere: lowest terms, except that 8-bit steps stay over 255 ("3/255")."""
    if value.denominator % 17 == 0 and 255 % value.denominator == 0:
        return f"{value * 255}/255"
    return str(value)


Exact = Annotated[
    Fraction,
    BeforeValidator(exact),
    PlainSerializer(fraction_text, return_type=str),
    WithJsonSchema({"type": "string", "examples": ["8/255", "0.3"], "description": "an exact fraction"}),
]


class Method(BaseModel):
    """Base of all methods: immutable, refuses unknown fields, and equal when its settings are equal."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    kind: ClassVar[str]
    name: ClassVar[str]
    family: ClassVar[str] = ""
    source: ClassVar[str] = ""

    def settings(self) -> dict[str, Any]:
        """The method as plain JSON data, name included: what a study file would say, with every default spelled out."""
        return {"name": self.name, **self.model_dump(mode="json")}

    def digest(self) -> str:
        """Twelve hex digits that change when any hyperparameter does."""
        return hashlib.sha256(canonical_json(self.settings()).encode()).hexdigest()[:12]


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces, so that equal data has equal text (and NaN is refused)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
