"""The engine's routes as typed methods: blocking, for any number of threads, one connection pool for all of them.

Sessions call it from the loop thread through ``await portal.in_thread(api.…)``; nothing here may run on that thread.
Arguments are checked before anything is sent, answers are read by `wire` and by nothing else, and a request is tried
again only where that is safe (`engine_requests`). No token appears in an error, a log or a repr.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Final, NoReturn
from uuid import uuid4

from . import validation, wire
from .credentials import Credentials
from .device import device_facts
from .engine_requests import DEFAULT_BUDGET, Ask, EngineRequests, ordered_key, present
from .engine_rooms import RoomApi
from .errors import UTDConflictError, UTDEngineError, UTDInputError, UTDStreamException
from .http_pool import HttpPool
from .models import (
    UTDCall,
    UTDCallPage,
    UTDCallStatus,
    UTDCallTicket,
    UTDRole,
    UTDSessionInfo,
    UTDStreamType,
    UTDTokenResponse,
)

__all__ = ["Credentials", "EngineApi"]

CONNECT_TIMEOUT: Final = 5.0
READ_TIMEOUT: Final = 8.0
_BUSY_CODES: Final = (None, wire.CALLEE_BUSY)


class EngineApi:
    """The engine, for one application.

    Args:
        app_id: the App ID, ten digits.
        app_key: the App Key, 32 hex digits or ``pk_live_…``.
        base_url: the engine's root; also used for tokens unless ``token_base_url`` is given. None for UTD's own hosts.
        token_base_url: root of the host that mints tokens. None for ``base_url``.
        connect_timeout: seconds until a connection stands (wire contract: 5).
        read_timeout: seconds without a byte of the answer (wire contract: 8).

    Every method takes ``deadline``: seconds it may take with all tries, None for 30. Every method may raise
    `UTDEngineError` (and its kinds for 409 and 403), `UTDTimeoutError`, `UTDConnectionError`, `UTDProtocolError`,
    `UTDClosedError`, and `UTDInputError` for what cannot be sent.

    Raises:
        UTDInputError: one of the arguments is malformed, or a URL would send credentials in the clear.
    """

    def __init__(
        self,
        app_id: str,
        app_key: str,
        *,
        base_url: str | None = None,
        token_base_url: str | None = None,
        connect_timeout: float = CONNECT_TIMEOUT,
        read_timeout: float = READ_TIMEOUT,
    ) -> None:
        self.app_id = validation.app_id(app_id)
        key = validation.app_key(app_key)
        engine = None if base_url is None else validation.base_url(base_url)
        token = None if token_base_url is None else validation.base_url(token_base_url, "token_base_url")
        self.base_url = engine or wire.ENGINE_HOST
        self.token_base_url = token or engine or wire.TOKEN_HOST
        self.device_id = uuid4().hex
        """What this client is called as a device, where `authenticate` is not told."""
        self._requests = EngineRequests(
            {
                wire.APP_ID: self.app_id,
                wire.APP_KEY: key,
                "Accept": "application/json",
                "User-Agent": f"utd-fsm/{device_facts().app_version or '0'}",
            },
            HttpPool(connect_timeout=connect_timeout, read_timeout=read_timeout),
        )
        self.rooms = RoomApi(self._requests, self.base_url)
        """The routes of live streams and audio rooms."""

    def __repr__(self) -> str:
        return f"EngineApi(app_id={self.app_id!r}, base_url={self.base_url!r})"

    def close(self) -> None:
        """Free the connections. What waits to try again ends with `UTDClosedError`. Any thread, any number of times."""
        self._requests.close()

    def health(self, *, deadline: float | None = 5.0) -> bool:
        """Whether the engine answers that it is well. One try; raises nothing because of the engine."""
        try:
            answer = self._requests.perform(Ask("GET", self.base_url, wire.HEALTH), deadline=deadline, tries=1)
        except UTDStreamException:
            return False
        return isinstance(answer, Mapping) and answer.get("status") == "ok"

    # --- sessions and tokens

    def authenticate(
        self,
        identity: str,
        *,
        name: str | None = None,
        device_id: str | None = None,
        deadline: float | None = None,
    ) -> Credentials:
        """Mint the bearer of one identity (``POST /auth/session``).

        Args:
            identity: who, 1 to 255 characters.
            name: display name, up to 255 characters.
            device_id: which device of that identity; None for an id that this client keeps.
        """
        identity = validation.identity(identity)
        name = validation.optional_name(name)
        device = self.device_id if device_id is None else validation.device_id(device_id)
        mint = self._mint_for(identity, name, device)
        return Credentials(identity, name=name, device_id=device, info=mint(deadline), mint=mint)

    def _mint_for(self, identity: str, name: str | None, device: str) -> Callable[[float | None], UTDSessionInfo]:
        body = {"identity": identity, "name": name, "device_id": device, "os": device_facts().os or None}
        return partial(self._mint, present(body))

    def _mint(self, body: Mapping[str, Any], deadline: float | None) -> UTDSessionInfo:
        ask = Ask("POST", self.token_base_url, wire.AUTH_SESSION, body=body, applies=False)
        return wire.read_session(self._requests.perform(ask, deadline=deadline), ask.route)

    def room_token(
        self,
        who: Credentials | str,
        room_name: str,
        type: UTDStreamType | str,
        role: str = "audience",
        *,
        name: str | None = None,
        image: str | None = None,
        room_owner_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        seat_count: int | None = None,
        seat_mode: str | None = None,
        host_seat: int | None = None,
        mode_id: int | str | None = None,
        device_id: str | None = None,
        deadline: float | None = None,
    ) -> UTDTokenResponse:
        """A way into a room (``POST /token``), with the bearer for its routes.

        Args:
            who: an identity, or credentials, whose name and device are then sent.
            role: what is asked for; the engine grants no more than the room allows.
            seat_count, seat_mode, host_seat, mode_id: seed an audio room's seats (hosts only).

        Raises:
            UTDForbiddenError: banned (``is_banned``; ``details`` tells until when); or the room is not open to `who`.
        """
        signed_in = who if isinstance(who, Credentials) else None
        body = {
            "identity": signed_in.identity if signed_in else validation.identity(who),
            "room_name": validation.room_name(room_name),
            "type": validation.stream_type(type).value,
            "role": validation.role(role).value,
            "name": validation.optional_name(name) or (signed_in.name if signed_in else None),
            "image": image,
            "room_owner_id": None if room_owner_id is None else validation.identity(room_owner_id, "room_owner_id"),
            "metadata": dict(validation.metadata(metadata)) or None,
            "seat_count": validation.optional_integer(seat_count, "seat_count", least=1, most=100),
            "seat_mode": None if seat_mode is None else validation.seat_mode(seat_mode).value,
            "host_seat": None if host_seat is None else validation.seat_index(host_seat, "host_seat"),
            "mode_id": validation.mode_id(mode_id),
            "device_id": device_id or (signed_in.device_id if signed_in else self.device_id),
            **device_facts().fields(),
        }
        ask = Ask("POST", self.token_base_url, wire.TOKEN, body=present(body))
        return wire.read_token(self._requests.perform(ask, deadline=deadline), ask.route)

    def enter_room(
        self,
        identity: str,
        room_name: str,
        type: UTDStreamType | str,
        *,
        as_host: bool = False,
        name: str | None = None,
        device_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        seat_count: int | None = None,
        seat_mode: str | None = None,
        mode_id: int | str | None = None,
        deadline: float | None = None,
    ) -> tuple[Credentials, UTDTokenResponse]:
        """Sign in and get a way into a room, in one request (``POST /token``).

        The bearer that the answer brings becomes the credentials'; one that the engine refuses later is minted again
        by ``POST /auth/session``, as any other. An engine that brings none is asked for one, by a second request.

        Args:
            as_host: whether to be the room's owner and host; whoever else claims it becomes audience.
            seat_count, seat_mode, mode_id: seed an audio room's seats (hosts only).

        Raises:
            UTDForbiddenError: banned (``is_banned``; ``details`` tells until when).
        """
        identity = validation.identity(identity)
        name = validation.optional_name(name)
        device = self.device_id if device_id is None else validation.device_id(device_id)
        until = time.monotonic() + (DEFAULT_BUDGET if deadline is None else deadline)
        way_in = self.room_token(
            identity,
            room_name,
            type,
            UTDRole.HOST if as_host else UTDRole.AUDIENCE,
            name=name,
            room_owner_id=identity if as_host else None,
            metadata=metadata,
            seat_count=seat_count,
            seat_mode=seat_mode,
            mode_id=mode_id,
            device_id=device,
            deadline=deadline,
        )
        if way_in.user_token is None:
            left = max(until - time.monotonic(), 0.0)
            return self.authenticate(identity, name=name, device_id=device, deadline=left), way_in
        info = UTDSessionInfo(way_in.user_token, ws_url=way_in.ws_url)
        return Credentials(
            identity, name=name, device_id=device, info=info, mint=self._mint_for(identity, name, device)
        ), way_in

    # --- calls

    def create_call(
        self,
        cred: Credentials,
        callee: str,
        type: UTDStreamType | str,
        *,
        callee_name: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        key: str,
        deadline: float | None = None,
    ) -> UTDCallTicket:
        """Call somebody (``POST /calls``).

        Args:
            key: idempotency key, ``<uuid>:<n>`` or any text of the application's; a repeat with the same one answers
                the same call.

        Raises:
            UTDConflictError: ``state`` is ``busy`` when the callee is on another call; otherwise the ``code`` tells
                why (``caller_busy``, ``superseded``).
        """
        callee = validation.identity(callee, "callee")
        stream_type = validation.call_type(type)
        callee_name = validation.optional_name(callee_name, "callee_name")
        details = validation.metadata(metadata)
        body = {
            "caller_identity": cred.identity,
            "callee_identity": callee,
            "caller_name": cred.name,
            "callee_name": callee_name,
            "type": stream_type.value,
            "metadata": dict(details) or None,
            "os": device_facts().os or None,
        }
        ask = self._post(cred, wire.CALLS, None, body, key=key)
        try:
            data = self._requests.perform(ask, deadline=deadline)
        except UTDConflictError as error:
            # Without a code every 409 to a create means busy (wire contract, calls).
            error.state = UTDCallStatus.BUSY.value if error.code in _BUSY_CODES else error.state
            raise
        # A short answer leaves out what it was told; the id it may not leave out.
        wire.Reader(data, ask.route).text("call_id")
        sent = UTDCall(
            call_id="",
            type=stream_type,
            status=UTDCallStatus.INITIATING,
            caller_identity=cred.identity,
            callee_identity=callee,
            caller_name=cred.name,
            callee_name=callee_name,
            metadata=details,
        )
        return wire.read_ticket(data, ask.route, record=sent)

    def ring(self, cred: Credentials, call_id: str, *, deadline: float | None = None) -> UTDCall:
        """Tell the caller that this device rings (``POST /calls/:id/ringing``). Idempotent by contract."""
        return self._step(cred, wire.CALL_RINGING, call_id, key=None, deadline=deadline)

    def accept(
        self,
        cred: Credentials,
        call_id: str,
        *,
        key: str,
        record: UTDCall | None = None,
        deadline: float | None = None,
    ) -> UTDCallTicket:
        """Answer a call (``POST /calls/:id/accept``).

        Args:
            record: what is known of the call; saves a second request where the engine's answer is short.

        Raises:
            UTDConflictError: cancelled, missed or taken by another device; ``state`` is the engine's.
        """
        body = {"identity": cred.identity, "device_id": cred.device_id, "os": device_facts().os or None}
        ask = self._post(cred, wire.CALL_ACCEPT, call_id, body, key=key)
        return self._ticket(ask, cred, call_id, record, deadline)

    def reject(self, cred: Credentials, call_id: str, *, key: str, deadline: float | None = None) -> UTDCall:
        """Decline a call (``POST /calls/:id/reject``)."""
        return self._step(cred, wire.CALL_REJECT, call_id, key=key, deadline=deadline)

    def busy(self, cred: Credentials, call_id: str, *, key: str, deadline: float | None = None) -> UTDCall:
        """Say that this party is on another call (``POST /calls/:id/busy``)."""
        return self._step(cred, wire.CALL_BUSY, call_id, key=key, deadline=deadline)

    def end(self, cred: Credentials, call_id: str, *, key: str, deadline: float | None = None) -> UTDCall:
        """Hang up, or cancel before the answer (``POST /calls/:id/end``)."""
        return self._step(cred, wire.CALL_END, call_id, key=key, deadline=deadline)

    def rejoin(
        self, cred: Credentials, call_id: str, *, record: UTDCall | None = None, deadline: float | None = None
    ) -> UTDCallTicket:
        """A fresh way into the room of a call one is in (``POST /calls/:id/token``, ours)."""
        body = {"identity": cred.identity, "device_id": cred.device_id}
        ask = self._post(cred, wire.CALL_TOKEN, call_id, body, key=None, applies=False)
        return self._ticket(ask, cred, call_id, record, deadline)

    def call(
        self, cred: Credentials, call_id: str, *, key: str | None = None, deadline: float | None = None
    ) -> UTDCall:
        """The record of one call (``GET /calls/:id``).

        Args:
            key: an idempotency key; the look then seals what was sent under lower ones (machines, law 5).
        """
        ask = Ask("GET", self.base_url, wire.CALL, id=call_id, key=ordered_key(key), credentials=cred, applies=False)
        return _about(call_id, wire.read_call(self._requests.perform(ask, deadline=deadline), ask.route), ask)

    def call_by_key(self, cred: Credentials, key: str, *, deadline: float | None = None) -> UTDCall | None:
        """The call that a create with this key made (``GET /calls?key=``); None if it made none and never will."""
        ask = Ask("GET", self.base_url, wire.CALLS, query={"key": ordered_key(key)}, credentials=cred, applies=False)
        try:
            page = wire.read_call_page(self._requests.perform(ask, deadline=deadline), ask.route)
        except UTDEngineError as error:
            if error.status_code == 404:
                return None
            raise
        return page.calls[0] if page.calls else None

    def calls(
        self,
        cred: Credentials,
        *,
        status: UTDCallStatus | str | None = None,
        type: UTDStreamType | str | None = None,
        identity: str | None = None,
        start_date: datetime | date | str | None = None,
        end_date: datetime | date | str | None = None,
        page: int = 1,
        per_page: int = 20,
        deadline: float | None = None,
    ) -> UTDCallPage:
        """One page of calls, newest first (``GET /calls``).

        Args:
            identity: whose calls; None for those of the credentials' own identity.
            start_date, end_date: a time (without a zone: UTC), a day, or either in ISO 8601.
            page: from 1.
            per_page: 1 to 100.
        """
        query = {
            "status": None if status is None else validation.enum(UTDCallStatus, status, "status").value,
            "type": None if type is None else validation.call_type(type).value,
            "identity": cred.identity if identity is None else validation.identity(identity),
            "start_date": _moment(start_date, "start_date"),
            "end_date": _moment(end_date, "end_date"),
            "page": validation.integer(page, "page", least=1, most=10**9),
            "per_page": validation.integer(per_page, "per_page", least=1, most=100),
        }
        ask = Ask("GET", self.base_url, wire.CALLS, query=query, credentials=cred, applies=False)
        return wire.read_call_page(self._requests.perform(ask, deadline=deadline), ask.route)

    # --- what the routes share

    def _post(
        self,
        cred: Credentials,
        template: str,
        call_id: str | None,
        body: Mapping[str, Any],
        *,
        key: str | None,
        applies: bool = True,
    ) -> Ask:
        return Ask(
            "POST",
            self.base_url,
            template,
            id=call_id,
            body=present(body),
            key=ordered_key(key),
            credentials=cred,
            applies=applies,
        )

    def _step(
        self, cred: Credentials, template: str, call_id: str, *, key: str | None, deadline: float | None
    ) -> UTDCall:
        body = {"identity": cred.identity, "device_id": cred.device_id}
        ask = self._post(cred, template, call_id, body, key=key)
        data = self._requests.perform(ask, deadline=deadline)
        told = wire.read_step(data, ask.route)
        if wire.Reader(data, ask.route).text("call_id") != call_id:
            _another(ask)
        return told or self.call(cred, call_id, deadline=deadline)

    def _ticket(
        self, ask: Ask, cred: Credentials, call_id: str, record: UTDCall | None, deadline: float | None
    ) -> UTDCallTicket:
        data = self._requests.perform(ask, deadline=deadline)
        reader = wire.Reader(data, ask.route)
        url, token = reader.text("url"), reader.text("token")
        if record is None and not wire.is_whole(reader.data):
            # Read after the answer, it is newer than anything the short answer could add.
            record = self.call(cred, call_id, deadline=deadline)
            return UTDCallTicket(call=record, url=url, token=token)
        ticket = wire.read_ticket(data, ask.route, record=record)
        _about(call_id, ticket.call, ask)
        return ticket


def _about(call_id: str, record: UTDCall, ask: Ask) -> UTDCall:
    """The record, if it is the one that was asked for."""
    if record.call_id != call_id:
        _another(ask)
    return record


def _another(ask: Ask) -> NoReturn:
    wire.malformed(ask.route, "call_id", "another call than was asked for")


def _moment(value: datetime | date | str | None, what: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            raise UTDInputError(f"{what}: not a time; allowed: a datetime, a date, or ISO 8601") from None
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).isoformat()
    if isinstance(value, date):
        return value.isoformat()
    raise UTDInputError(f"{what}: got {type(value).__name__}; allowed: a datetime, a date, or ISO 8601")
