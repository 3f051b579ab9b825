"""Random JSON schemas of bounded size: sensible ones, wrong ones, and what only looks like one."""

from __future__ import annotations

import random
from typing import Any

_TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
_PATTERNS = (
    "^[a-z]{1,8}$",
    "^\\d{4}-\\d{2}-\\d{2}$",
    "a+b*",
    "(ab|cd)*e?",
    "^(([a-c]{1,4}b){1,4}c)$",
    "[^x]",
    "\\p{L}+",
    "(?=a)b",
    "(a)\\1",
    "[",
    "a{3,1}",
    "",
    "^.{0,100}$",
    "^.{0,200}$",
    "\\bword\\b",
    "é|漢",
)
_FORMATS = ("date", "date-time", "email", "uuid", "ipv4", "uri", "hostname", "unheard-of")
_VALUES: tuple[Any, ...] = (
    "a",
    "é漢🙂",
    "",
    0,
    -1,
    1.5,
    10**20,
    True,
    None,
    [1, "b"],
    {"k": None},
    '"\\',
)
_NAMES = ("a", "b", "city", "é", "with space", '"', "a.b", "$x", "")


class RandomSchemas:
    """Draws schemas from `seed`; each has at most `depth` levels and about `nodes` parts."""

    def __init__(self, seed: int, *, depth: int = 6, nodes: int = 60) -> None:
        self._random = random.Random(seed)
        self._depth, self._nodes = depth, nodes
        self._left = 0
        self._definitions = "$defs"
        self._names: list[str] = []

    def draw(self) -> Any:
        """One schema; now and then its root is no object."""
        self._left = self._nodes
        self._definitions = self._pick(("$defs", "$defs", "definitions"))
        self._names = [f"d{number}" for number in range(self._random.randrange(4))]
        schema = self._schema(self._depth)
        if self._names and isinstance(schema, dict):
            definitions = {name: self._schema(2) for name in self._names}
            schema[self._definitions] = definitions
        return schema

    def _pick(self, values: Any) -> Any:
        return self._random.choice(values)

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _schema(self, depth: int) -> Any:
        self._left -= 1
        if self._chance(0.01):
            return self._pick((True, False, {}, [], "string", None, 5))
        if depth <= 0 or self._left <= 0:
            return self._scalar()
        return self._nested(depth)

    def _nested(self, depth: int) -> Any:
        kind = self._random.randrange(30)
        if kind < 13:
            return self._object(depth)
        if kind < 19:
            return self._array(depth)
        if kind < 25:
            return self._union(depth)
        return self._odd(depth) if kind == 29 else self._scalar()

    def _scalar(self) -> Any:
        kind = self._random.randrange(7)
        if kind == 0:
            return {"enum": [self._pick(_VALUES) for _ in range(1 + self._random.randrange(5))]}
        if kind == 1:
            return {"const": self._pick(_VALUES)}
        if kind == 2 and self._names:
            return {"$ref": f"#/{self._definitions}/{self._pick(self._names)}"}
        if kind == 3:
            low = self._pick((0, -5, 3, 2.5, 10**18))
            limits = {"minimum": low, "maximum": low + self._random.randrange(200)}
            return {"type": self._pick(("integer", "number")), **limits}
        schema: dict[str, Any] = {"type": "string"}
        extra = self._random.randrange(12)  # two of them together are refused by most engines
        if extra < 2:
            schema["pattern"] = self._pick(_PATTERNS)
        elif extra < 4:
            schema["format"] = self._pick(_FORMATS)
        elif extra < 7:
            schema |= self._bounds("minLength", "maxLength")
        elif extra == 7:
            schema |= {"pattern": self._pick(_PATTERNS), "format": "date", "maxLength": 5}
        return schema if self._chance(0.7) else {"type": self._pick(_TYPES)}

    def _bounds(self, low: str, high: str) -> dict[str, int]:
        """A least and a largest number, now and then impossible or huge."""
        if self._chance(0.1):
            return {low: self._pick((-1, 500, 5)), high: self._pick((0, 3, 100_000))}
        least = self._pick((0, 1, 3))
        return {low: least, high: least + self._pick((0, 2, 10, 100))}

    def _object(self, depth: int) -> Any:
        names = self._random.sample(_NAMES, self._random.randrange(1, 5))
        schema: dict[str, Any] = {"properties": {name: self._schema(depth - 1) for name in names}}
        if self._chance(0.9):
            schema["type"] = "object"
        if self._chance(0.6):
            schema["required"] = [
                *names[: self._random.randrange(5)],
                *(["gone"] * self._chance(0.03)),
            ]
        if self._chance(0.5):
            schema["additionalProperties"] = self._pick((False, False, True, {"type": "string"}))
        if self._chance(0.03):
            schema["patternProperties"] = {self._pick(_PATTERNS): self._schema(depth - 1)}
        if self._chance(0.05):
            schema |= self._bounds("minProperties", "maxProperties")
        if self._chance(0.02):
            schema["propertyNames"] = {"pattern": self._pick(_PATTERNS)}
        return schema

    def _array(self, depth: int) -> Any:
        schema: dict[str, Any] = {"type": "array"}
        if self._chance(0.8):
            schema["items"] = self._schema(depth - 1)
        if self._chance(0.2):
            schema["prefixItems"] = [
                self._schema(depth - 1) for _ in range(self._random.randrange(3))
            ]
        if self._chance(0.4):
            schema |= self._bounds("minItems", "maxItems")
        if self._chance(0.03):
            schema["uniqueItems"] = True
        return schema

    def _union(self, depth: int) -> Any:
        branches = [self._schema(depth - 1) for _ in range(1 + self._random.randrange(4))]
        return {self._pick(("anyOf", "anyOf", "oneOf", "allOf")): branches}

    def _odd(self, depth: int) -> Any:
        part = self._schema(depth - 1)
        return self._pick(
            (
                {"not": part},
                {"if": part, "then": {"type": "string"}, "else": {"type": "null"}},
                {"type": [self._pick(_TYPES), "null"]},
                {"type": "no type"},
                {"$ref": "#/$defs/nowhere"},
                {"$ref": "#"},
                {"$ref": "http://127.0.0.1:1/schema.json"},
                {"type": "object", "properties": [part]},
                {"type": "array", "items": [part]},
                {"dependentRequired": {"a": ["b"]}, "type": "object"},
                {"anyOf": part},
                {
                    "title": "x",
                    "description": "é",
                    "default": part,
                    "examples": [part],
                    "type": "object",
                },
            )
        )


def as_request(schema: Any, kind: int) -> dict[str, Any]:
    """The fields that ask for an answer along `schema`, in one of four ways."""
    if kind % 4 == 0:
        return {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": schema},
            }
        }
    if kind % 4 == 1:
        return {"structured_outputs": {"json": schema}}
    function = {"name": "f", "parameters": schema, "strict": kind % 8 == 2}
    if kind % 4 == 2:
        return {"tools": [{"type": "function", "function": function}], "tool_choice": "required"}
    tag = {"begin": "<f>", "schema": schema, "end": "</f>"}
    return {"response_format": {"type": "structural_tag", "structures": [tag], "triggers": ["<f"]}}
