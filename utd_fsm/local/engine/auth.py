"""Who is asking: the application's id and key, a backend's secret, and the bearer of one user.

A bearer is signed, not stored: identity, name, device and expiry with an HMAC over them, so that it survives a restart
and costs no read. Nothing here logs or repeats a credential.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass

from utd_fsm import wire

from .refusal import Refused
from .settings import EngineSettings
from .store import Store


@dataclass(frozen=True, slots=True)
class Who:
    """The one who asks."""

    identity: str | None
    """None for the application's backend, which may speak for anybody."""
    name: str | None = None
    device_id: str | None = None

    def must_be(self, identity: str | None) -> str:
        """The identity that the request is about: the bearer's own, or any for a backend.

        Raises: Refused: 403 where a bearer speaks for somebody else, 422 where nobody is named.
        """
        if self.identity is None:
            if identity is None:
                raise Refused(422, "identity: is required when the application's backend asks", "validation")
            return identity
        if identity is not None and identity != self.identity:
            raise Refused(403, "the bearer belongs to another identity; act for your own only", "wrong_identity")
        return self.identity


class Auth:
    """Checks credentials and mints bearers."""

    def __init__(self, settings: EngineSettings, store: Store) -> None:
        self._settings = settings
        secret = settings.app_secret
        if secret is None:
            secret = store.meta("bearer_secret")
            if secret is None:
                secret = secrets.token_hex(32)
                store.set_meta("bearer_secret", secret)
        self._key = hmac.new(secret.encode(), b"utd-fsm bearer", hashlib.sha256).digest()

    def check_app(self, headers: Mapping[str, str]) -> bool:
        """Whether the application's backend asks.

        Raises: Refused: 401, neither the application's key nor its secret.
        """
        good_id = _same(headers.get(wire.APP_ID), self._settings.app_id)
        given = headers.get(wire.APP_SECRET)
        if given is not None:
            if good_id and self._settings.app_secret is not None and _same(given, self._settings.app_secret):
                return True
            raise Refused(401, f"{wire.APP_ID} or {wire.APP_SECRET} is wrong", "bad_app")
        if not (good_id and _same(headers.get(wire.APP_KEY), self._settings.app_key)):
            raise Refused(401, f"{wire.APP_ID} or {wire.APP_KEY} is missing or wrong", "bad_app")
        return False

    def mint(self, identity: str, name: str | None, device_id: str | None) -> str:
        """A bearer for one identity."""
        claims = [identity, name, device_id, int(time.time() + self._settings.bearer_ttl)]
        content = _encode(json.dumps(claims, separators=(",", ":")).encode())
        return f"u1.{content}.{self._sign(content)}"

    def bearer(self, token: str) -> Who:
        """Whose bearer it is.

        Raises: Refused: 401, forged, malformed or expired.
        """
        head, _, rest = token.partition(".")
        content, _, signature = rest.partition(".")
        if head != "u1" or not _same(signature, self._sign(content)):
            raise Refused(401, "the bearer is not valid; get a new one from POST /auth/session", "bad_bearer")
        identity, name, device_id, expires = json.loads(base64.urlsafe_b64decode(content + "=" * (-len(content) % 4)))
        if expires < time.time():
            raise Refused(401, "the bearer has expired; get a new one from POST /auth/session", "bearer_expired")
        return Who(identity, name, device_id)

    def who(self, headers: Mapping[str, str]) -> Who:
        """Who asks, by the request's headers (case-insensitive mapping).

        Raises: Refused: 401.
        """
        backend = self.check_app(headers)
        scheme, _, token = (headers.get("authorization") or "").partition(" ")
        if scheme.lower() == "bearer" and token:
            return self.bearer(token.strip())
        if backend:
            return Who(None)
        raise Refused(401, "Authorization: Bearer <user_token> is missing", "no_bearer")

    def _sign(self, content: str) -> str:
        return _encode(hmac.new(self._key, content.encode("utf-8", "replace"), hashlib.sha256).digest())


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _same(given: str | None, expected: str) -> bool:
    return given is not None and hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())
