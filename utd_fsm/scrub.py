"""Takes tokens and keys out of text, before it reaches a message, a log or a screen.

Whatever others wrote passes through here: the engine's error texts, an HTTP library's, LiveKit's (a refused join's text
holds the whole access token, a failed connection's the URL with ``access_token=…``). It is the second net: nothing of
ours puts a secret into a text in the first place. Pure; imports nothing of the package.
"""

from __future__ import annotations

import re
from typing import Final

HIDDEN: Final = "<hidden>"

# A JWT: three base64url parts, the first of which is the JSON object of a header ("eyJ"); cut-off ones count too.
_JWT = re.compile(r"\beyJ[\w-]{4,}(?:\.[\w-]*){0,2}")
# "the bearer belongs to another" is English; a token has a digit or a sign in it, or is longer than words are.
_BEARER = re.compile(
    r"(?:\b|(?<=%20))(bearer)(?:\s+|%20)(?=[^\s\"',;&<>]*(?:[\d_=~+/-]|\w\.\w)|[^\s\"',;&<>]{20})[^\s\"',;&<>]{6,}",
    re.IGNORECASE,
)
_NAMED = re.compile(
    r"\b((?:\w*_)?(?:token|secret|password|signature|api_?key|app[_-]?key)|x-app-(?:key|secret)"
    r"|join_request|authorization)"
    r"([\"']?\s*(?:=|:|%3d)\s*[\"']?)(?:(?:bearer|basic) )?[^\s\"'&,;<>)}\]]+",
    re.IGNORECASE,
)
_APP_KEY = re.compile(r"\bpk_(?:live|test)_\w+|(?<![0-9A-Za-z_-])[0-9a-fA-F]{32}(?![0-9A-Za-z_-])")


def scrub(text: str, *secrets: str) -> str:
    """`text` without what looks like a secret, and without `secrets` themselves.

    Hidden are JWTs, what follows ``Bearer``, the values of fields and parameters that are called a token, secret,
    password, signature or app key (``access_token=…``, ``"user_token": "…"``, ``X-App-Key: …``), ``pk_live_…`` and bare
    runs of 32 hex digits, which is what an App Key looks like.

    Args:
        text: any text.
        secrets: strings to take out besides, whatever they look like; empty ones are ignored.

    Returns:
        The text with each of them replaced by ``<hidden>``. Scrubbing twice changes nothing more.
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, HIDDEN)
    text = _NAMED.sub(rf"\1\2{HIDDEN}", text)
    text = _BEARER.sub(rf"\1 {HIDDEN}", text)
    text = _JWT.sub(HIDDEN, text)
    return _APP_KEY.sub(HIDDEN, text)


def foreign(text: str, limit: int = 300) -> str:
    """A text that somebody else wrote, made fit for one line of a message: scrubbed, printable, at most `limit` long.

    What cannot be printed becomes a blank, so that nobody forges lines in a log or turns its text around.
    """
    # Cut after scrubbing: half a token must not survive because its telling part was cut off.
    scrubbed = scrub(text[: limit * 20])[: limit * 2]
    clean = " ".join("".join(c if c.isprintable() else " " for c in scrubbed).split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
