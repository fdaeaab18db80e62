"""What computed a result, as one short string: nothing stale can pass for fresh."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from enum import Enum
from pathlib import PurePath
from typing import Any


@dataclasses.dataclass(frozen=True)
class Fingerprint:
    """The ingredients of a computation; `value` is their hash.

    Attributes:
        udf: name of the UDF.
        ingredients: flat mapping from a dotted name (`version`, `parameters.size`, `models.body`,
            `upstream.labels`) to a JSON scalar or list.
    """

    udf: str
    ingredients: Mapping[str, Any]

    @property
    def json(self) -> str:
        return json.dumps({"udf": self.udf, **self.ingredients}, sort_keys=True, separators=(",", ":"))

    @property
    def value(self) -> str:
        """16 hexadecimal digits."""
        return hashlib.blake2b(self.json.encode(), digest_size=8).hexdigest()


def fingerprint(
    udf: str,
    version: int,
    parameters: Mapping[str, Any],
    models: Mapping[str, str] | None = None,
    upstream: Mapping[str, str] | None = None,
) -> Fingerprint:
    """Fingerprint of a UDF: its name, version, every parameter, model digests and upstream fingerprints."""
    ingredients: dict[str, Any] = {"version": version}
    ingredients |= _flat("parameters", parameters)
    ingredients |= {f"models.{k}": v for k, v in sorted((models or {}).items())}
    ingredients |= {f"upstream.{k}": v for k, v in sorted((upstream or {}).items())}
    return Fingerprint(udf, ingredients)


def difference(old: str, new: str) -> str:
    """What changed between two `Fingerprint.json` texts, for a reader: "parameters.size 256 -> 512"."""
    a, b = json.loads(old), json.loads(new)
    changes = [
        f"{key} {_brief(a.get(key))} -> {_brief(b.get(key))}"
        for key in sorted({*a, *b})
        if a.get(key) != b.get(key)
    ]
    return ", ".join(changes) if changes else "nothing"


def _brief(value: Any) -> str:
    text = "(none)" if value is None else json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Nested parameters as dotted scalars, so that a difference names the one that changed."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    elif hasattr(value, "model_dump"):
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        flat: dict[str, Any] = {}
        for key in sorted(value, key=str):
            flat |= _flat(f"{name}.{key}", value[key])
        return flat
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, PurePath):
        raise TypeError(f"{name} is a path: a fingerprint takes the digest of a file, never its place")
    if isinstance(value, set | frozenset):
        value = sorted(value)
    if isinstance(value, tuple | list):
        if any(_has_parts(v) for v in value):
            flat = {f"{name}.length": len(value)}
            for i, item in enumerate(value):
                flat |= _flat(f"{name}.{i}", item)
            return flat
        return {name: [_flat(name, v)[name] for v in value]}
    if value is None or isinstance(value, bool | int | float | str):
        return {name: value}
    raise TypeError(f"{name} is a {type(value).__name__}, which has no stable text form")


def _has_parts(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_has_parts(v) for v in value)
    return isinstance(value, Mapping) or dataclasses.is_dataclass(value) or hasattr(value, "model_dump")
