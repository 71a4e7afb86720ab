"""
The shape of a configuration, once: checked by pydantic, and the JSON Schema that editors complete from.

What a single value may be stands in `devsup.config.values`. Constants; loaded only to check a file that has
changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)

from devsup.config import values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["App", "Defaults", "File", "json_schema"]

#: Where the schema says that it is: the address that `#:schema` of a file names.
ID = "urn:devsup:config:1"


def _value(check: Callable[[Any], Any], **schema: Any) -> Any:
    return PlainValidator(check), WithJsonSchema(schema)


def _kind(value: Any, info: ValidationInfo) -> str:
    return values.one_of(value, tuple((info.context or {}).get("kinds", ())))


def _name(value: Any) -> str:
    import re

    if isinstance(value, str) and re.fullmatch(values.NAME, value):
        return value
    raise values.Wrong(
        ["a-z, 0-9, `_` and `-`, at most 63, and not a number"], why=f"`{value}` cannot be a name"
    )


_TEXT = {"type": "string", "minLength": 1}
_TEXTS = {"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]}
_SECONDS = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^((\d+(\.\d+)?(ms|s|m|h|d))+|\d+(\.\d+)?)$"},
    ]
}

_ADDRESS = (
    r"^(\$[A-Za-z_]\w*|\$\{[A-Za-z_]\w*\}"
    r"|(redis|rediss|unix|valkey|valkeys)://(?![^@]*:[^@]*@).+)$"
)

Kind = Annotated[str, *_value(_kind, type="string")]
Command = Annotated[
    list[str],
    *_value(values.command, anyOf=[_TEXT, {"type": "array", "items": {"type": "string"}, "minItems": 1}]),
]
Port = Annotated[
    int | str,
    *_value(values.port, anyOf=[{"type": "integer", "minimum": 1, "maximum": 65535}, {"const": "auto"}]),
]
Size = Annotated[
    int,
    *_value(
        values.size,
        anyOf=[
            {"const": 0},
            {"type": "integer", "minimum": 65536},
            {"type": "string", "pattern": r"^\d{1,12} ?[kKmMgG]?[bB]?$"},
        ],
    ),
]
Duration = Annotated[float, *_value(values.duration, **_SECONDS)]
Environment = Annotated[
    dict[str, str],
    *_value(
        values.environment, type="object", additionalProperties={"type": ["string", "number", "boolean"]}
    ),
]
Texts = Annotated[list[str], *_value(values.texts, **_TEXTS)]
Names = Annotated[
    list[str], *_value(values.names, type="array", items={"type": "string", "pattern": values.NAME})
]
Switch = Annotated[bool, *_value(values.switch, type="boolean")]


def _one_of(*words: str) -> Any:
    return PlainValidator(lambda value: values.one_of(value, words)), WithJsonSchema({"enum": list(words)})


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ready(_Table):
    """When a server counts as ready; always a listening socket of its own tree first."""

    tcp: Switch | None = Field(None, description="true: its socket is enough, no HTTP answer is asked for.")
    http: Annotated[str, *_value(values.path, type="string", pattern="^/")] | None = Field(
        None, description="Path that has to answer over HTTP; any status counts."
    )
    status: Annotated[int, *_value(values.status, type="integer", minimum=100, maximum=599)] | None = Field(
        None, description="The only status that counts."
    )
    log: Annotated[str, *_value(values.pattern, **_TEXT)] | None = Field(
        None, description="Regular expression that its output has to match."
    )
    timeout: Duration | None = Field(None, description="How long `start` and `up` wait (45s).")
    owner: Annotated[str, *_one_of("tree", "any")] | None = Field(
        None, description='"any": the listener may be another process, such as a container\'s proxy.'
    )


class Stop(_Table):
    """How a server is ended."""

    signal: Annotated[str, *_one_of(*values.SIGNALS)] | None = Field(
        None, description="The signal that asks it to end (SIGTERM)."
    )
    grace: Duration | None = Field(None, description="From that signal to SIGKILL (5s).")
    keep: Texts | None = Field(None, description="Programs that it started and that go on after it.")


class Health(_Table):
    """Whether somebody looks after it once it is ready."""

    interval: Duration | None = Field(None, description="How often its readiness is asked for again.")
    restart: Switch | None = Field(None, description="true: run it again when it has become unhealthy.")


class Fleet(_Table):
    """The fleet that the servers of this project are in, together with those of other hosts."""

    url: Annotated[str, *_value(values.fleet_url, type="string", pattern=_ADDRESS)] | None = Field(
        None, description='Where its Redis is: "$REDIS_URL", or an address without a password.'
    )
    name: Annotated[str, *_value(values.fleet_name, type="string", pattern=values.NAME)] | None = Field(
        None, description="Which of the fleets on that Redis (default)."
    )
    ttl: Annotated[float, *_value(values.fleet_ttl, **_SECONDS)] | None = Field(
        None, description="After how long without a sign of life a host counts as lost (30s)."
    )
    on_lost: Annotated[str, *_one_of(*values.ON_LOST)] | None = Field(
        None, description="What becomes of an exclusive app that has lost its lease (keep)."
    )


class Defaults(_Table):
    """What holds for every app of the project that does not say otherwise."""

    env: Environment | None = Field(None, description="Variables for the server.")
    env_file: Texts | None = Field(None, description="Files of variables, from the app's folder; `env` wins.")
    host: Annotated[str, *_value(values.host, **_TEXT)] | None = Field(
        None, description="Address to listen on, given in the way of its kind."
    )
    ready: Ready | None = None
    stop: Stop | None = None
    restart: Annotated[str, *_one_of(*values.RESTARTS)] | None = Field(
        None, description="Whether it is run again when it ends by itself (no)."
    )
    idle_timeout: Duration | None = Field(None, description="Stopped after so long without a client.")
    ttl: Duration | None = Field(None, description="Stopped so long after its start.")
    health: Health | None = None
    log_limit: Size | None = Field(None, description="Disk that the log of a run may take (20MB; 0: any).")


class App(Defaults):
    """One app."""

    kind: Kind | None = Field(
        None, description="What it is: decides how the port is given, and when it is ready."
    )
    dir: Annotated[str, *_value(values.folder, **_TEXT)] | None = Field(
        None, description="Its folder, from the folder of this file."
    )
    command: Command | None = Field(None, description="What runs it: a text, or a list of words.")
    port: Port | None = Field(None, description='The port to serve on; "auto": a free one, always the same.')
    depends_on: Names | None = Field(None, description="Apps that `up` starts before it.")
    exclusive: Annotated[str, *_one_of(*values.EXCLUSIVE)] | None = Field(
        None, description='"fleet": at most one server of it on all hosts of the fleet.'
    )


def _apps(value: Any) -> Any:
    if isinstance(value, dict):
        for name in value:
            _name(name)
    return value


class File(_Table):
    """devsup.toml: how the apps of a project are run."""

    project: Annotated[str, *_value(values.project, **_TEXT)] | None = Field(None, description="Its name.")
    fleet: Fleet | None = None
    defaults: Defaults | None = None
    apps: Annotated[dict[str, App], BeforeValidator(_apps)] = Field(
        default_factory=dict, description="The apps, by name: [apps.NAME]."
    )


def json_schema(kinds: Sequence[str]) -> dict[str, Any]:
    """Return the JSON Schema of the file; ``kinds`` are the names that `kind` may have."""
    schema = _without_null(File.model_json_schema())
    schema["$defs"]["App"]["properties"]["kind"]["enum"] = list(kinds)
    schema["properties"]["apps"]["propertyNames"] = {"pattern": values.NAME}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": ID, **schema}


def _without_null(schema: Any) -> Any:
    """Return a schema without what pydantic adds for `None`: in a file a key is there or not."""
    if isinstance(schema, list):
        return [_without_null(one) for one in schema if one != {"type": "null"}]
    if not isinstance(schema, dict):
        return schema
    found = {
        name: _without_null(one)
        for name, one in schema.items()
        if not (name == "default" and one is None) and not (name == "title" and isinstance(one, str))
    }
    only = found.get("anyOf")
    if isinstance(only, list) and len(only) == 1:
        del found["anyOf"]
        found = {**only[0], **found}
    return found
