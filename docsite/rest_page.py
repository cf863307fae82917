"""The endpoints of the REST API, and its problems."""

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, cast

from docsite.arguments import Schema
from docsite.markdown import code, page, sentence, table
from docsite.program import operations, program
from docsite.stand_ins import NOTHING_RUNS
from letta_matrix.doors.rest.app import make_app
from letta_matrix.doors.rest.problems import PROBLEMS
from letta_matrix.doors.rest.routing import PREFIX
from letta_matrix.doors.rest.security import SCOPE

TITLE = "REST API"
_COMPATIBLE = "compatible"

Document = Mapping[str, Any]


def document() -> Document:
    """The API as it describes itself; it has nothing to answer with."""
    services = SimpleNamespace(config=program().config, homeserver=NOTHING_RUNS)
    return make_app(cast("Any", services)).openapi()


def text() -> str:
    """The page."""
    made = document()
    return page(
        TITLE,
        "On port 8004. [How to use it](../how-to/rest.md) tells what holds everywhere: tokens, "
        "pages, `Idempotency-Key`, limits. A running bridge shows all of it with its fields, "
        "examples and answers at `/docs`, and as OpenAPI 3.1 at `/openapi.json`.",
        "Paths stand below `/api/v1` unless something else is said. `{room}` is a room's id, its "
        "alias, or its exact name among the rooms you are in, percent-encoded. An argument in "
        "*italics* has to be given. Paths of the original integration stand in "
        "[a list of their own](../how-to/rest.md#the-original-integrations-paths).",
        *_groups(made),
        "## Problems",
        "Errors are [problem documents](../how-to/rest.md#problems); the last part of their `type` "
        "is one of these.",
        table(
            ("type", "status", "when"),
            ((code(slug), str(one.status), one.meaning) for slug, one in PROBLEMS.items()),
        ),
    )


def _groups(made: Document) -> Iterator[str]:
    for tag in made["tags"]:
        if tag["name"] == _COMPATIBLE:
            continue
        yield f"## {sentence(tag['name']).rstrip('.')}"
        yield sentence(tag["description"])
        rows = [
            (_where(method, path), _scope(one), f"{_said(one)} {_taken(one, made)}")
            for path, methods in made["paths"].items()
            for method, one in methods.items()
            if tag["name"] in one["tags"]
        ]
        yield table(("endpoint", "scope", "what it does"), rows)


def _where(method: str, path: str) -> str:
    below, at_root = path.removeprefix(PREFIX), "" if path.startswith(PREFIX) else " at the root"
    return f"{code(f'{method.upper()} {below}')}{at_root}"


def _scope(operation: Document) -> str:
    if "security" not in operation:
        return "no token"
    if scope := operation.get(SCOPE):
        return code(str(scope))
    says_itself = {one.called for one in operations() if one.scope is None}
    if operation["operationId"] == "call_tool":
        return "the tool's"
    return "told there" if operation["operationId"] in says_itself else "any"


def _said(operation: Document) -> str:
    text = str(operation["description"])
    return sentence(text.partition("\n\nNeeds a token with")[0])


def _taken(operation: Document, made: Document) -> str:
    query = [one for one in operation.get("parameters", []) if one["in"] == "query"]
    taken = [_named(one["name"], one["required"]) for one in query]
    body: Schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if schema := body.get("schema"):
        name = str(schema.get("$ref", "")).rsplit("/", 1)[-1]
        whole = made["components"]["schemas"].get(name, schema)
        fields = [one for one in whole.get("properties", {}) if one != "transaction_id"]
        taken += [_named(one, one in whole.get("required", [])) for one in fields]
    return f"Takes {', '.join(taken)}." if taken else ""


def _named(name: str, needed: bool) -> str:
    return f"*{code(name)}*" if needed else code(name)
