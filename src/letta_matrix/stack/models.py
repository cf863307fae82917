"""Which model the embedded agents think with, and how the App Server is told.

The App Server's own `letta connect` takes keys on its command line, where every
local user can read them; so its provider file (0600, the one `connect` writes) is
written here instead.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import aiohttp

from letta_matrix.common.connections.unreached import why_unreached
from letta_matrix.common.parts import part
from letta_matrix.stack.errors import BadFlagError, StackError
from letta_matrix.stack.files import read_beneath, write_beneath

DEMO_PROVIDER = "openai-compatible"
DEMO_MODEL = "letta-matrix-demo"
DEMO_HANDLE = f"{DEMO_PROVIDER}/{DEMO_MODEL}"

_DEMO_KEY = re.compile(r"demo|letta-matrix-demo-.+")
_NO_KEY = "none"
_PROVIDERS = Path(".letta", "lc-local-backend", "providers", "auth.json")
_TIMEOUT = aiohttp.ClientTimeout(total=5)

_KEY_VARIABLES = {
    "ANTHROPIC_API_KEY": "anthropic",
    "OPENAI_API_KEY": "openai",
    "GEMINI_API_KEY": "google",
    "GOOGLE_API_KEY": "google",
    "OPENROUTER_API_KEY": "openrouter",
    "ZAI_API_KEY": "zai",
    "MINIMAX_API_KEY": "minimax",
    "MOONSHOT_API_KEY": "moonshotai",
}
"""Environment variable -> the App Server's name for the provider; the first one set wins."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A provider, and perhaps one of its models; `origin` says to a person where it came from."""

    provider: str
    origin: str
    key: str = ""
    base_url: str = ""
    model: str = ""
    demo: bool = False

    @property
    def handle(self) -> str:
        """The App Server's name of the model, empty when its provider's first one is meant."""
        if not self.model or self.model.startswith(f"{self.provider}/"):
            return self.model
        return f"{self.provider}/{self.model}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The model that a person asked for on the command line; "" where nothing was said."""

    base_url: str = ""
    key: str = ""
    model: str = ""


def check_wanted(wanted: Wanted) -> None:
    """Raises BadFlagError for what cannot be meant, whatever else there is."""
    if wanted.key and not wanted.base_url:
        raise BadFlagError(
            "--model-api-key needs --model-base-url; or set OPENAI_API_KEY and so on"
        )


def choose_model(
    environment: Mapping[str, str], connected: ModelChoice | None, wanted: Wanted
) -> ModelChoice | None:
    """What was asked for, else a key in the environment, else the provider connected by an
    earlier start (`connected`); None leaves the demo model.

    Raises:
        StackError: a key or a model without a provider they could belong to.
    """
    check_wanted(wanted)
    model = wanted.model
    if wanted.base_url:
        return _endpoint(wanted)
    if found := _by_key(environment, model):
        return found
    if connected:
        return replace(connected, model=model)
    if model:
        raise StackError(
            f"--model {model}: no provider for it; give --model-base-url, or set one of "
            + ", ".join(_KEY_VARIABLES)
        )
    return None


def _endpoint(wanted: Wanted) -> ModelChoice:
    url = wanted.base_url
    if not re.match(r"https?://[^/]", url):
        raise BadFlagError(f"--model-base-url {url}: expected http://HOST/v1 or https://HOST/v1")
    key = wanted.key or _NO_KEY
    return ModelChoice("openai-compatible", f"the endpoint {url}", key, url, wanted.model)


def _by_key(environment: Mapping[str, str], model: str) -> ModelChoice | None:
    for variable, provider in _KEY_VARIABLES.items():
        wanted = not model or "/" not in model or model.startswith(f"{provider}/")
        if environment.get(variable) and wanted:
            origin = f"{provider}, with the key in {variable}"
            return ModelChoice(provider, origin, environment[variable], "", model)
    return None


def demo_key(secret: str) -> str:
    """The key of the demo model; it can be told from those of real ones."""
    return f"letta-matrix-demo-{secret}"


def demo_choice(port: int, key: str) -> ModelChoice:
    """The built-in demo model on its port, which answers who has its key."""
    url = f"http://127.0.0.1:{port}/v1"
    return ModelChoice(DEMO_PROVIDER, "the built-in demo model", key, url, DEMO_MODEL, demo=True)


async def check_endpoint(http: aiohttp.ClientSession, choice: ModelChoice) -> None:
    """Ask the endpoint of `choice`, if it has one of its own, for its models.

    Raises:
        StackError: it does not answer within 5 s, or refuses the key.
    """
    if not choice.base_url or choice.demo:
        return
    url = f"{choice.base_url.rstrip('/')}/models"
    headers = {"Authorization": f"Bearer {choice.key}"}
    try:
        async with http.get(url, headers=headers, timeout=_TIMEOUT) as response:
            status = response.status
    except TimeoutError:
        raise _unusable(url, "no answer within 5 s") from None
    except (aiohttp.ClientError, ValueError) as error:
        raise _unusable(url, why_unreached(error)) from None
    if status in (401, 403):
        wrong = "wants a key: set" if choice.key == _NO_KEY else "refused the key: check"
        raise StackError(
            f"the model's endpoint {wrong} LETTA_MATRIX_MODEL_API_KEY (GET {url} answered {status})"
        )


def _unusable(url: str, reason: str) -> StackError:
    return StackError(
        f"the model's endpoint does not answer: GET {url}: {reason}; start it, or name another "
        "by --model-base-url"
    )


@part
class ProviderFile:
    """The App Server's list of connected providers, below its home."""

    _home: Path

    def connected(self) -> ModelChoice | None:
        """A provider connected earlier, the demo model aside."""
        for name, entry in self._providers().items():
            key, url = str(entry.get("auth", {}).get("key", "")), str(entry.get("base_url", ""))
            if not _DEMO_KEY.fullmatch(key):
                what = f"the endpoint {url}" if url else name
                return ModelChoice(name, f"{what}, as connected earlier", key, url)
        return None

    def connect(self, choice: ModelChoice) -> list[Path]:
        """Add or replace a provider; others stay as they are. What agents had put in the way of
        the file is moved aside, and named: it lies in their reach, and we reach more."""
        providers = self._providers()
        known = providers.get(choice.provider, {})
        there = (known.get("auth", {}).get("key"), known.get("base_url", ""))
        if not choice.key or there == (choice.key, choice.base_url):
            return []
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        entry: dict[str, Any] = {
            "id": f"local-provider-{choice.provider}",
            "name": choice.provider,
            "provider_type": choice.provider,
            "provider_category": "byok",
            "auth": {"type": "api", "key": choice.key},
            "created_at": known.get("created_at", now),
            "updated_at": now,
        }
        if choice.base_url:
            entry["base_url"] = choice.base_url
        providers[choice.provider] = entry
        text = json.dumps({"version": 1, "providers": providers}, indent=2)
        return write_beneath(self._home, _PROVIDERS, text)

    def _providers(self) -> dict[str, dict[str, Any]]:
        if (text := read_beneath(self._home, _PROVIDERS)) is None:
            return {}
        try:
            data = json.loads(text)
            return cast("dict[str, dict[str, Any]]", data["providers"])
        except (ValueError, KeyError, TypeError):
            path = self._home / _PROVIDERS
            raise StackError(f"{path}: is damaged; move it away and start again") from None
