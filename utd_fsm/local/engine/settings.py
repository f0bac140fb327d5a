"""What a local engine is started with: one frozen value, checked once, and its way through a child's environment.

Pure: reads no file and no environment by itself. Secrets stay out of its ``repr`` and travel in environment variables,
never in arguments, which every user of the machine can read.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from utd_fsm.errors import UTDInputError

ENV_PREFIX: Final = "UTD_ENGINE_"
"""Each field travels as ``UTD_ENGINE_<FIELD>``, in JSON (a bare text is taken as it is)."""

DEMO_APP_ID: Final = "1234567890"
DEMO_APP_KEY: Final = "a1b2c3d4e5f6a7b8c9d0e1f2a3b4c5d6"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Everything the engine may be told. Durations are in seconds."""

    app_id: str = DEMO_APP_ID
    """Ten digits."""
    app_key: str = DEMO_APP_KEY
    """Publishable: it identifies, it does not protect."""
    app_secret: str | None = field(default=None, repr=False)
    """What a backend sends as ``X-App-Secret``; bearers are signed with a key derived from it. None: backends are
    refused, and bearers are signed with a key the engine makes and keeps in its database."""
    host: str = "127.0.0.1"
    port: int = 8090
    """0 to 65535; 0 takes a free one."""
    db: str = ":memory:"
    """Path of the SQLite file, or ``:memory:``: then a restart forgets everything."""
    media_url: str = "ws://127.0.0.1:7880"
    """Where clients and the engine find the media server, ``ws://`` or ``wss://``."""
    livekit_key: str = "devkey"
    livekit_secret: str = field(default="devsecret-devsecret-devsecret-32", repr=False)
    ring_timeout: float = 30.0
    """From the create to ``missed``. The hosted engine takes 10 to 120; tests want less."""
    max_call: float = 3600.0
    """From the answer to ``ended`` with ``max_duration``. The hosted engine takes 60 to 14,400."""
    rate_limit: int = 120
    """Requests a minute and identity (or address, before one is known); 0 is no limit."""
    webhook_url: str | None = None
    """Where the application's backend wants to be told; None: nowhere."""
    webhook_secret: str | None = field(default=None, repr=False)
    """Signs the webhooks; needed with ``webhook_url``."""
    webhook_delays: tuple[float, ...] = (0, 2, 4, 8, 16, 32)
    """The wait before each attempt (wire contract)."""
    webhook_timeout: float = 5.0
    party_grace: float = 60.0
    """How long a party that dropped may come back before the call is cut (LiveKit fact 36)."""
    join_grace: float = 20.0
    """How long after the answer a party may take to join for the first time."""
    host_blink: float = 2.0
    """How long a host's connection may be gone before its stream shows ``host_away``: LiveKit's full reconnect is a
    leave and a join (fact 35)."""
    video_effects: bool = False
    """Whether participants of streams and audio rooms carry the ``videoEffects`` claim."""
    reconcile_every: float = 30.0
    """How often every room is compared with the books."""
    bearer_ttl: float = 86_400.0
    """Life of a user's bearer."""
    token_ttl: float = 3600.0
    """Life of a LiveKit token (wire contract: one hour)."""
    sole_owner: bool = True
    """Whether the media server is this engine's alone: then rooms with a call's name that it does not know are
    deleted. False where several engines share one."""

    def __post_init__(self) -> None:
        """Raises: UTDInputError: a value is out of its range; the message names it."""
        if not (self.app_id.isascii() and self.app_id.isdigit() and len(self.app_id) == 10):
            raise UTDInputError(f"app_id must be ten digits, got {len(self.app_id)} characters")
        if not self.app_key:
            raise UTDInputError("app_key must not be empty")
        if not 0 <= self.port <= 65535:
            raise UTDInputError(f"port must be 0 to 65535, got {self.port}")
        if urlsplit(self.media_url).scheme not in ("ws", "wss", "http", "https"):
            raise UTDInputError("media_url must begin with ws:// or wss://")
        if not self.livekit_key or not self.livekit_secret:
            raise UTDInputError("livekit_key and livekit_secret must not be empty")
        for name in ("ring_timeout", "max_call", "webhook_timeout", "party_grace", "join_grace", "host_blink",
                     "reconcile_every", "bearer_ttl", "token_ttl"):  # fmt: skip
            value = getattr(self, name)
            if not (math.isfinite(value) and 0 < value <= 10_000_000):
                raise UTDInputError(f"{name} must be more than 0 seconds and finite, got {value!r}")
        if self.rate_limit < 0:
            raise UTDInputError(f"rate_limit must be 0 (no limit) or more requests a minute, got {self.rate_limit}")
        if not self.webhook_delays or any(not (math.isfinite(d) and d >= 0) for d in self.webhook_delays):
            raise UTDInputError("webhook_delays must be one or more waits of 0 seconds or more")
        if self.webhook_url is not None:
            if urlsplit(self.webhook_url).scheme not in ("http", "https"):
                raise UTDInputError("webhook_url must begin with http:// or https://")
            if not self.webhook_secret:
                raise UTDInputError("webhook_url needs webhook_secret: webhooks are always signed")

    def to_env(self) -> dict[str, str]:
        """The variables that `from_env` reads back; hand them to a child process."""
        return {
            ENV_PREFIX + f.name.upper(): json.dumps(value)
            for f in dataclasses.fields(self)
            if (value := getattr(self, f.name)) is not None
        }

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **overrides: Any) -> EngineSettings:
        """Settings out of an environment.

        Args:
            environ: usually ``os.environ``.
            overrides: fields that win over the environment; None leaves the environment's.

        Raises:
            UTDInputError: a value is malformed or out of range.
        """
        given: dict[str, Any] = {}
        for f in dataclasses.fields(cls):
            raw = environ.get(ENV_PREFIX + f.name.upper())
            if raw is None:
                continue
            is_text = str(f.type).startswith("str")
            try:
                value = json.loads(raw)
            except ValueError:
                value = raw
            if is_text and not isinstance(value, str):
                value = raw  # app_id is all digits, and JSON reads a number
            given[f.name] = tuple(value) if isinstance(value, list) else value
        given.update({name: value for name, value in overrides.items() if value is not None})
        try:
            return cls(**given)
        except (TypeError, AttributeError) as error:
            raise UTDInputError(f"the engine's settings are malformed: {error}") from None
