"""Settings from YAML: validated by a pydantic model, and every complaint names the line and the key."""

import difflib
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from schemas.errors import ConfigError

Model = TypeVar("Model", bound=BaseModel)
Path = tuple[str | int, ...]

_MAX_CHARACTERS = 1_000_000
_MAX_SHOWN = 10


def load_yaml(text: str, name: str, model: type[Model]) -> Model:
    """The settings in a YAML text.

    Args:
        text: the file's text. An empty one means every default.
        name: what messages call the file.
        model: what the text must hold.

    Raises:
        ConfigError: no YAML, a key twice, an unknown key, a wrong value; one line a complaint, such as
            "file.yaml line 12: policy.rules[2].mni: unknown key; did you mean min?".
    """
    data, lines = _parse(text, name)
    if not isinstance(data, dict):
        raise ConfigError(f"{name}: holds a {type(data).__name__} and not keys with values")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
    found = [_Complaint.of(d, data, model) for d in details]
    kept = sorted(_of_best_member(found), key=lambda c: _line(lines, c.path))
    shown = [f"{name} line {_line(lines, c.path)}: {c.text}" for c in kept[:_MAX_SHOWN]]
    if len(kept) > _MAX_SHOWN:
        shown.append(f"and {len(kept) - _MAX_SHOWN} more")
    raise ConfigError("\n".join(shown))


def dotted(path: Path) -> str:
    """("policy", "rules", 2, "min") as policy.rules[2].min."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def did_you_mean(word: str, known: typing.Iterable[str]) -> str:
    """ "; did you mean min?", or the known words when none is near and they are few."""
    words = sorted(set(known))
    near = difflib.get_close_matches(word, words, 1, 0.6)
    if near:
        return f"; did you mean {near[0]}?"
    return f"; known are {', '.join(words)}" if 0 < len(words) <= 40 else ""


@dataclass(frozen=True)
class _Complaint:
    """path: where in the file; member: (path, name) of the union member that complains, if any."""

    path: Path
    member: tuple[Path, str] | None
    text: str

    @classmethod
    def of(cls, detail: ErrorDetails, data: Any, model: type[BaseModel]) -> "_Complaint":
        # pydantic's location mixes the file's keys with names of union members, which no reader knows.
        path: list[str | int] = []
        member = None
        here, last = data, len(detail["loc"]) - 1
        for i, part in enumerate(detail["loc"]):
            in_list = isinstance(here, list) and isinstance(part, int) and part < len(here)
            if in_list or (isinstance(here, dict) and part in here):
                here = here[part]
            elif not (i == last and detail["type"] == "missing"):
                member = member or (tuple(path), str(part))
                continue
            path.append(part)
        return cls(tuple(path), member, f"{dotted(tuple(path))}: {_said(detail, tuple(path), model)}")


def _said(detail: ErrorDetails, path: Path, model: type[BaseModel]) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        return "unknown key" + did_you_mean(str(path[-1]), _keys_at(model, path[:-1]))
    if kind == "missing":
        return "is missing"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message[:1].lower() + message[1:] if message.startswith("Input should") else message
    given = detail["input"]
    if isinstance(given, dict | list) or kind == "value_error":
        return message
    return f"{message}, not {given!r}" if len(repr(given)) <= 80 else message


def _of_best_member(found: list[_Complaint]) -> list[_Complaint]:
    """Where a value fits no member of a union, the complaints of the one that it nearly fits."""
    counts: dict[tuple[Path, str], int] = {}
    for complaint in found:
        if complaint.member:
            counts[complaint.member] = counts.get(complaint.member, 0) + 1
    best: dict[Path, tuple[Path, str]] = {}
    for member, count in counts.items():
        rival = best.get(member[0])
        if rival is None or count < counts[rival]:
            best[member[0]] = member
    return [c for c in found if c.member is None or best[c.member[0]] == c.member]


def _keys_at(model: type[BaseModel], path: Path) -> set[str]:
    """Keys that the model knows at a place, over all members of unions on the way."""
    kinds = [model]
    for part in path:
        inner: list[Any] = []
        for kind in kinds:
            if isinstance(part, str) and part in kind.model_fields:
                inner += _models_in(kind.model_fields[part].annotation)
            elif isinstance(part, int):
                inner.append(kind)  # `_models_in` has looked through the list already
        kinds = inner
    return {key for kind in kinds for key in kind.model_fields}


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _models_in(argument)


def _line(lines: dict[Path, int], path: Path) -> int:
    """Line of the nearest place that the file has: what is missing is reported where it belongs."""
    while path not in lines:
        path = path[:-1]
    return lines[path]


def _parse(text: str, name: str) -> tuple[Any, dict[Path, int]]:
    """The plain data, and the line (from 1) of every key and item."""
    if len(text) > _MAX_CHARACTERS:
        raise ConfigError(f"{name}: has {len(text)} characters; settings have {_MAX_CHARACTERS} at the most")
    loader = None
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines: dict[Path, int] = {(): 1}
        if node is None:
            return {}, lines
        lines[()] = node.start_mark.line + 1
        _check_node(node, (), lines, name, set())
        return loader.construct_document(node), lines
    except yaml.MarkedYAMLError as error:
        line = f" line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"{name}{line}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{name}: no YAML: {' '.join(str(error).split())}") from error
    except RecursionError as error:
        raise ConfigError(f"{name}: nested too deeply") from error
    finally:
        if loader is not None:
            loader.dispose()


def _check_node(node: yaml.Node, path: Path, lines: dict[Path, int], name: str, seen: set[int]) -> None:
    line = node.start_mark.line + 1
    # An alias gives the same node twice. A few of aliases can stand for gigabytes.
    if id(node) in seen:
        raise ConfigError(f"{name} line {lines.get(path, line)}: {dotted(path)}: no anchors and aliases here")
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            lines[*path, i] = item.start_mark.line + 1
            _check_node(item, (*path, i), lines, name, seen)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            where = f"{name} line {key.start_mark.line + 1}: {dotted(path) or 'the file'}"
            if not isinstance(key, yaml.ScalarNode) or key.tag != "tag:yaml.org,2002:str":
                shown = key.value if isinstance(key, yaml.ScalarNode) else "that"
                raise ConfigError(f"{where}: key {shown} is no text; put it in quotes")
            inner = (*path, key.value)
            if inner in lines:
                raise ConfigError(f"{where}: {key.value} is there twice, first on line {lines[inner]}")
            lines[inner] = key.start_mark.line + 1
            _check_node(value, inner, lines, name, seen)
