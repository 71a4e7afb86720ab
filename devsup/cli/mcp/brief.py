"""
Short forms of the JSON Schemas of the tools: a client puts them all into an agent's context, before any call.

Pure functions. What the whole schema allows, its short form allows, too: it says what is there and of which
type, and leaves out what only narrows that. `devsup schema` shows the whole ones.
"""

from __future__ import annotations

from typing import Any

__all__ = ["brief", "optional"]

#: What narrows, or is for people.
_LEFT_OUT = {
    *("$defs", "$id", "$schema", "title", "description", "pattern", "minimum", "maximum", "minLength"),
    *("if", "then", "else", "allOf", "required", "additionalProperties"),
}
#: Values that are worth being listed; a type stands for more of them.
_MOST_VALUES = 10


def brief(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the short form, without references, of the ``schema`` of an object; only its keys stay fixed."""
    short = _short(schema, schema)
    return {**short, "required": schema["required"], "additionalProperties": False}


def optional(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the ``schema`` of a property that may be left out, without the null that says the same."""
    others = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if "default" not in schema or schema["default"] is not None or not others:
        return schema
    rest = {name: value for name, value in schema.items() if name not in ("anyOf", "default")}
    return {**others[0], **rest} if len(others) == 1 else {"anyOf": others, **rest}


def _short(node: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    if (target := node.get("$ref")) is not None:
        found = whole
        for name in target.removeprefix("#/").split("/"):
            found = found[name]
        return _short(found, whole)
    for key in ("anyOf", "oneOf"):
        if key in node:
            return _either([_short(one, whole) for one in node[key]])
    short = {name: value for name, value in node.items() if name not in _LEFT_OUT}
    if len(short.get("enum", ())) > _MOST_VALUES:
        del short["enum"]
        short["type"] = "string"
    if "properties" in short:
        short["properties"] = {name: _short(one, whole) for name, one in short["properties"].items()}
    if "items" in short:
        short["items"] = _short(short["items"], whole)
    return short


def _is_part(one: dict[str, Any], other: dict[str, Any]) -> bool:
    own, more = one.get("properties"), other.get("properties")
    return bool(own and more and len(own) < len(more) and all(more.get(name) == own[name] for name in own))


def _either(several: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one schema of several, as a single one where all but one are null or a part of that one."""
    # What is required is not said here: who has all the properties of another stands for that, too.
    several = [one for one in several if not any(_is_part(one, other) for other in several)]
    others = [one for one in several if one != {"type": "null"}]
    if (
        len(others) == 1
        and len(several) == 2
        and isinstance(others[0].get("type"), str)
        and "enum" not in others[0]
    ):
        return {**others[0], "type": [others[0]["type"], "null"]}
    return {"anyOf": several}
