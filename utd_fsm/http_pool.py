"""One HTTP request after another over kept connections: sends one, reads the whole answer, says what went wrong.

It decides nothing: no retries, no redirects, no cookies, no reading of fields. It raises nothing either, but answers
with a `Failure`: an exception of `requests` holds the request with its bearer, and must not become the cause of ours.
Threads may share a pool; after a fork the child has a fresh one. `requests` is loaded at the first use.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from .validation import is_loopback

if TYPE_CHECKING:
    from requests import PreparedRequest, Response
    from requests.adapters import HTTPAdapter

log = logging.getLogger("utd_fsm.http")

MAX_BODY: Final = 8 << 20
"""Bytes of an answer: a page of a hundred calls with full metadata is 2 MB."""
_POOL_SIZE: Final = 32
_CHUNK: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer of the engine."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    """Case-insensitive."""
    body: bytes = field(repr=False)

    def json(self) -> Any:
        """The body as JSON; None where it is empty.

        Raises:
            ValueError: not JSON, or JSON that Python's own would let pass: NaN, half characters, bottomless nesting.
        """
        if not self.body.strip():
            return None
        try:
            value = json.loads(self.body, parse_constant=_refuse_constant)
            if b"\\u" in self.body:
                # An escaped half of a character parses, and then fails wherever somebody prints or sends it.
                json.dumps(value, ensure_ascii=False).encode()
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return value


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


@dataclass(frozen=True, slots=True)
class Failure:
    """No answer, or not a whole one."""

    what: str
    """For the message; never holds a URL or a secret."""
    sent: bool
    """Whether the engine may have got the request."""
    timed_out: bool = False
    again: bool = True
    """Whether the same request might do better."""
    malformed: bool = False
    """An answer came that is none (too long, cut off, wrongly packed)."""
    status: int | None = None


class HttpPool:
    """Connections to the engine's hosts.

    Args:
        connect_timeout: seconds until a connection stands.
        read_timeout: seconds between two pieces of an answer, and for the whole of its body.

    Proxies and certificate bundles of the environment (``HTTPS_PROXY``, ``REQUESTS_CA_BUNDLE``) count, except on
    loopback; a ``.netrc`` never does, it would replace the bearer.
    """

    def __init__(self, *, connect_timeout: float = 5.0, read_timeout: float = 8.0) -> None:
        self._timeouts = (connect_timeout, read_timeout)
        self._lock = threading.Lock()
        self._adapter: HTTPAdapter | None = None
        _pools.add(self)

    def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None = None,
        budget: float | None = None,
    ) -> Answer | Failure:
        """Send one request and read the answer.

        Args:
            budget: seconds it may take in all; shortens the timeouts. None for no more limit than those.

        Any thread; blocks it. Never raises because of the network or of what the other side sends.
        """
        from requests import Request

        connect, read = self._timeouts
        if budget is not None:
            connect, read = min(connect, max(budget, 0.001)), min(read, max(budget, 0.001))
        try:
            request = Request(method, url, headers=dict(headers), data=body).prepare()
        except ValueError as error:
            # Its text quotes the header, which may be the one with the bearer.
            return Failure(f"no request could be made ({type(error).__name__})", sent=False, again=False)
        return self._send(request, connect, read)

    def close(self) -> None:
        """Close the idle connections. A later request opens new ones. Any thread, any number of times."""
        with self._lock:
            adapter, self._adapter = self._adapter, None
        if adapter is not None:
            adapter.close()

    def _send(self, request: PreparedRequest, connect: float, read: float) -> Answer | Failure:
        from requests.exceptions import InvalidProxyURL, InvalidURL, RequestException
        from requests.utils import get_environ_proxies
        from urllib3.exceptions import HTTPError

        url = request.url or ""
        loopback = is_loopback(urlsplit(url).hostname)
        started = time.monotonic()
        try:
            response = self._connections().send(
                request,
                stream=True,  # so that an endless body is not read to its end
                timeout=(connect, read),
                verify=os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True,
                proxies={} if loopback else get_environ_proxies(url),
            )
        except (InvalidURL, InvalidProxyURL) as error:
            return Failure(f"{type(error).__name__}: the URL or the proxy's URL is not one", sent=False, again=False)
        except (RequestException, HTTPError, OSError) as error:
            return _failure(error)
        except (ValueError, UnicodeError) as error:
            # What the HTTP library could not parse: header lines, lengths.
            return Failure(f"no HTTP answer ({type(error).__name__})", sent=True, malformed=True)
        try:
            return _read(response, started + connect + 2 * read)
        finally:
            response.close()

    def _connections(self) -> HTTPAdapter:
        with self._lock:
            if self._adapter is None:
                from requests.adapters import HTTPAdapter

                # An adapter and not a Session: no cookies, no redirects, nothing that threads could share by accident.
                self._adapter = HTTPAdapter(pool_connections=4, pool_maxsize=_POOL_SIZE, max_retries=0)
            return self._adapter

    def _after_fork(self) -> None:
        # The parent goes on using these connections; the lock may be held by a thread that does not exist here.
        self._lock = threading.Lock()
        self._adapter = None


_pools: weakref.WeakSet[HttpPool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _read(response: Response, until: float) -> Answer | Failure:
    from urllib3.exceptions import DecodeError, HTTPError

    status, raw = response.status_code, response.raw
    # What has come so far, not a full chunk: a body that trickles must not hold the thread for hours.
    read = getattr(raw, "read1", None) or raw.read
    body = bytearray()
    try:
        while chunk := read(_CHUNK, decode_content=True):
            body += chunk
            if len(body) > MAX_BODY:
                what = f"an answer of more than {MAX_BODY} bytes"
                return Failure(what, sent=True, again=False, malformed=True, status=status)
            if time.monotonic() > until:
                return Failure("the answer came too slowly", sent=True, timed_out=True, status=status)
    except DecodeError:
        what = "a body that is not packed as it says"
        return Failure(what, sent=True, again=False, malformed=True, status=status)
    except (HTTPError, OSError, ValueError) as error:
        return _failure(error, answered=status)
    return Answer(status, response.headers, bytes(body))


def _failure(error: BaseException, *, answered: int | None = None) -> Failure:
    """What an exception of the HTTP libraries means for the one question that counts: may the engine have got it?"""
    from requests import exceptions as r
    from urllib3 import exceptions as u

    chain = _chain(error)
    if answered is None:
        if isinstance(error, r.ConnectTimeout):
            return Failure("connecting timed out", sent=False, timed_out=True)
        if any(isinstance(e, (u.NewConnectionError, u.NameResolutionError)) for e in chain):
            return Failure(f"no connection ({_reason(chain)})", sent=False)
        if isinstance(error, r.ProxyError):
            return Failure("the proxy refused the connection", sent=False)
        if isinstance(error, r.SSLError):
            # A handshake: the request goes out only after it.
            return Failure("no secure connection (certificate or protocol refused)", sent=False, again=False)
    if isinstance(error, (r.Timeout, u.TimeoutError, TimeoutError)) or any(
        isinstance(e, u.ReadTimeoutError) for e in chain
    ):
        return Failure("no answer in time", sent=True, timed_out=True, status=answered)
    if answered is not None:
        return Failure(f"the answer broke off ({_reason(chain)})", sent=True, status=answered)
    return Failure(f"the connection broke ({_reason(chain)})", sent=True)


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and all it wraps; urllib3 puts causes into ``args`` and ``reason`` as well."""
    found: list[BaseException] = []
    waiting: list[object] = [error]
    while waiting and len(found) < 20:
        e = waiting.pop(0)
        if isinstance(e, BaseException) and e not in found:
            found.append(e)
            waiting += [getattr(e, "reason", None), e.__cause__, e.__context__, *e.args]
    return found


def _reason(chain: list[BaseException]) -> str:
    """The operating system's word for it where there is one. Never a library's text, which quotes URLs."""
    for error in reversed(chain):
        if isinstance(error, OSError) and error.errno is not None and error.strerror:
            return str(error.strerror)[:80]
    return type(chain[-1]).__name__


def status_name(status: int) -> str:
    """``404 Not Found``."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
