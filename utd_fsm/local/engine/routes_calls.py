"""The routes of calls: what comes in is checked, given to the rules in one transaction, and answered.

Field names and paths are the wire contract's. No rule of a call is decided here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query
from fastapi.responses import JSONResponse

from utd_fsm import wire
from utd_fsm.models import UTDCallStatus

from . import bodies, idempotency
from .asking import Asked, Keyed, TheEngine, answer_json
from .auth import Who
from .calls import Stepped
from .idempotency import Answer
from .refusal import Refused
from .service import Done, Engine, record

_NO: Final[dict[int | str, dict[str, Any]]] = {
    status: {"model": bodies.Refusal, "description": text}
    for status, text in {
        401: "The application's id or key, or the bearer, is missing or wrong.",
        403: "Not allowed to this identity.",
        404: "No such call.",
        409: "Somebody was faster, or the call's state does not allow it; `status` names the state. Nothing changed.",
        422: "Something in the request is malformed.",
        429: "Too many requests; `Retry-After` says when to come back.",
    }.items()
}
_MAX_PAGE: Final = 1_000_000

routes = APIRouter(tags=["calls"])


def _ticket(engine: Engine, stepped: Stepped, identity: str, status: int = 200) -> Done:
    token = engine.tokens.for_call(stepped.call, identity)
    content = {**record(stepped.call), "token": token, "url": engine.settings.media_url}
    return Done(Answer(status, content), stepped.call if stepped.changed else None)


def _plain(stepped: Stepped) -> Done:
    return Done(Answer(200, record(stepped.call)), stepped.call if stepped.changed else None)


def _verb(
    engine: Engine, who: Who, key: str | None, route: str, call_id: str, body: bodies.ByIdentity,
    do: Callable[[str, str | None], Done],
) -> JSONResponse:  # fmt: skip
    identity = who.must_be(body.identity)
    device = getattr(body, "device_id", None) or who.device_id
    content = body.model_dump(mode="json", exclude_none=True)
    path = route.replace("{id}", call_id)
    return answer_json(engine.run(identity, idempotency.parse(key), path, content, lambda: do(identity, device)))


@routes.post(wire.CALLS, status_code=201, responses={201: {"model": bodies.CallTicket}, **_NO}, summary="Call somebody")
async def create(body: bodies.CreateCall, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """A new call, `initiating`, and the caller's way into its room. One identity holds one call: 409 `callee_busy`
    or `caller_busy`. It is `missed` when nobody answers within the ring timeout."""
    caller = who.must_be(body.caller_identity)
    parsed = idempotency.parse(key)
    content = body.model_dump(mode="json", exclude_none=True)

    def do() -> Done:
        call = engine.calls.create(
            caller=caller,
            callee=body.callee_identity,
            type=body.type,
            caller_name=body.caller_name or who.name,
            callee_name=body.callee_name,
            metadata=body.metadata or {},
            key=None if parsed is None else str(parsed),
        )
        return _ticket(engine, Stepped(call, changed=True), caller, 201)

    return answer_json(engine.run(caller, parsed, wire.CALLS, content, do))


@routes.get(wire.CALLS, responses={200: {"model": bodies.CallPage}, **_NO}, summary="List calls")
async def listed(
    engine: TheEngine,
    who: Asked,
    status: UTDCallStatus | None = None,
    type: Annotated[bodies.CallType | None, Query()] = None,
    identity: Annotated[bodies.Identity | None, Query()] = None,
    start_date: Annotated[str | None, Query(description="ISO 8601; a date alone is its first moment, UTC.")] = None,
    end_date: Annotated[str | None, Query(description="ISO 8601; a date alone is included whole.")] = None,
    key: Annotated[
        str | None,
        Query(description="Ours: the call that a create with this idempotency key made, or none; seals the key."),
    ] = None,
    page: Annotated[int, Query(ge=1, le=_MAX_PAGE)] = 1,
    per_page: Annotated[int, Query(ge=1, le=100)] = 20,
    sealing: Keyed = None,
) -> JSONResponse:
    """One's own calls, newest first. The application's backend sees everybody's."""
    mine = who.identity if identity is None else who.must_be(identity)
    looked_for, seal = idempotency.parse(key), idempotency.parse(sealing)
    if looked_for is not None:
        owner = who.must_be(mine)
        engine.look(owner, looked_for)
        engine.look(owner, seal)
        found = engine.store.call_by_key(owner, str(looked_for))
        rows, total = ([], 0) if found is None else ([found], 1)
    else:
        if mine is not None:
            engine.look(mine, seal)
        rows, total = engine.store.page(
            identity=mine, status=status, type=type, start=_moment("start_date", start_date),
            end=_moment("end_date", end_date, whole_day=True), page=page, per_page=per_page,
        )  # fmt: skip
    pages = {"page": page, "per_page": per_page, "total": total, "total_pages": -(-total // per_page)}
    return answer_json(Answer(200, {"data": [record(call) for call in rows], "pagination": pages}))


@routes.get(wire.CALL, responses={200: {"model": bodies.CallRecord}, **_NO}, summary="Read a call")
async def read(id: str, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """The call's record, for its parties."""
    if who.identity is not None:
        engine.look(who.identity, idempotency.parse(key))
    call = engine.calls.get(id) if who.identity is None else engine.calls.of_party(id, who.identity)
    return answer_json(Answer(200, record(call)))


@routes.post(wire.CALL_RINGING, responses={200: {"model": bodies.CallRecord}, **_NO}, summary="It rings")
async def ringing(id: str, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """A device of the callee rings. A second one changes nothing."""
    return _verb(engine, who, key, wire.CALL_RINGING, id, body, lambda actor, _: _plain(engine.calls.ring(id, actor)))


@routes.post(wire.CALL_ACCEPT, responses={200: {"model": bodies.CallTicket}, **_NO}, summary="Answer")
async def accept(id: str, body: bodies.AcceptCall, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """The callee answers with this device, and gets its way into the room. The first device wins; another is told
    409 `answered_elsewhere`."""
    return _verb(engine, who, key, wire.CALL_ACCEPT, id, body,
                lambda actor, device: _ticket(engine, engine.calls.accept(id, actor, device), actor))  # fmt: skip


@routes.post(wire.CALL_REJECT, responses={200: {"model": bodies.CallRecord}, **_NO}, summary="Decline")
async def reject(id: str, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """The callee declines."""
    return _verb(engine, who, key, wire.CALL_REJECT, id, body, lambda actor, _: _plain(engine.calls.reject(id, actor)))


@routes.post(wire.CALL_BUSY, responses={200: {"model": bodies.CallRecord}, **_NO}, summary="Say busy")
async def busy(id: str, body: bodies.ByIdentity, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """The callee is on another call."""
    return _verb(engine, who, key, wire.CALL_BUSY, id, body, lambda actor, _: _plain(engine.calls.say_busy(id, actor)))


@routes.post(wire.CALL_END, responses={200: {"model": bodies.CallRecord}, **_NO}, summary="Cancel or hang up")
async def end(id: str, body: bodies.ByDevice, engine: TheEngine, who: Asked, key: Keyed = None) -> JSONResponse:
    """The caller cancels (`caller_cancelled`) or hangs up (`caller_hangup`); the device that answered hangs up
    (`callee_hangup`). Before the answer a callee rejects and never ends: 409 `not_answered`."""
    return _verb(engine, who, key, wire.CALL_END, id, body,
                lambda actor, device: _plain(engine.calls.end(id, actor, device)))  # fmt: skip


@routes.post(wire.CALL_TOKEN, responses={200: {"model": bodies.CallTicket}, **_NO}, summary="Come back (ours)")
async def rejoin(id: str, body: bodies.ByDevice, engine: TheEngine, who: Asked) -> JSONResponse:
    """A fresh way into the room of an open call: for its caller, and for the device that answered."""
    identity = who.must_be(body.identity)
    call = engine.calls.may_rejoin(id, identity, body.device_id or who.device_id)
    return answer_json(_ticket(engine, Stepped(call, changed=False), identity).answer)


def _moment(field: str, text: str | None, *, whole_day: bool = False) -> datetime | None:
    """A time out of a query.

    Raises: Refused: 422.
    """
    if text is None:
        return None
    text = re.sub(r" (?=\d\d:?\d\d$)", "+", text)  # a plus sign that nobody encoded
    try:
        moment = datetime.fromisoformat(text)
        if whole_day and len(text) <= len("2026-01-01"):
            moment += timedelta(days=1)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise Refused(422, f"{field}: must be ISO 8601, for instance 2026-01-31T12:00:00Z", "validation") from None
