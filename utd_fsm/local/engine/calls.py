"""The rules of a call: who may do what, and what the declared `CallRecord` makes of it.

Every verb is one step of the machine on one row: it is allowed and the row has a new version, or it is refused and
nothing has changed. No request, token, timer or socket is known here; the caller of these functions holds the
transaction.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final

from utd_fsm import wire
from utd_fsm.machines import CallRecord, start
from utd_fsm.models import UTDCall, UTDCallStatus, UTDStreamType

from .refusal import Refused
from .store import Store

CANCELLED: Final = "caller_cancelled"
CALLER_HUNG_UP: Final = "caller_hangup"
CALLEE_HUNG_UP: Final = "callee_hangup"
MAX_DURATION: Final = "max_duration"
CONNECTION_LOST: Final = "connection_lost"
"""A party vanished and did not come back, or never came (ours)."""


@dataclass(frozen=True, slots=True)
class Stepped:
    """A call after a verb."""

    call: UTDCall
    changed: bool
    """False where the machine declares the event and nothing changes (a second ``ring``)."""


def now() -> datetime:
    """This moment, UTC."""
    return datetime.now(UTC)


class Calls:
    """The records of all calls, changed by the machine's rules only."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, call_id: str) -> UTDCall:
        """Raises: Refused: 404."""
        call = self._store.call(call_id)
        if call is None:
            raise Refused(404, "no such call", "not_found")
        return call

    def create(
        self,
        *,
        caller: str,
        callee: str,
        type: UTDStreamType,
        caller_name: str | None,
        callee_name: str | None,
        metadata: Mapping[str, Any],
        key: str | None,
    ) -> UTDCall:
        """A new call. One identity holds one call.

        Raises: Refused: 409 ``callee_busy`` or ``caller_busy``; 422 for a call to oneself.
        """
        if caller == callee:
            raise Refused(422, "callee_identity: nobody can call oneself", "validation")
        if self._store.open_calls(callee):
            raise Refused(409, "the callee is already on a call", wire.CALLEE_BUSY, state=UTDCallStatus.BUSY)
        if own := self._store.open_calls(caller):
            raise Refused(409, "the caller is already on a call; end it first", wire.CALLER_BUSY, state=own[0].status)
        call_id = f"call_{secrets.token_hex(12)}"
        call = UTDCall(
            call_id=call_id,
            type=type,
            status=UTDCallStatus(start(CallRecord).state),
            caller_identity=caller,
            callee_identity=callee,
            caller_name=caller_name,
            callee_name=callee_name,
            metadata=metadata,
            room_name=call_id,
            initiated_at=now(),
            version=1,
        )
        self._store.insert_call(call, key)
        return call

    def ring(self, call_id: str, actor: str) -> Stepped:
        """A device of the callee rings."""
        call = self._as_callee(call_id, actor, "say that it rings")
        return self._step(call, "ring")

    def accept(self, call_id: str, actor: str, device_id: str | None) -> Stepped:
        """The callee answers with this device; the first one wins."""
        call = self._as_callee(call_id, actor, "accept")
        if call.status is UTDCallStatus.ACTIVE and device_id != call.answered_by:
            raise Refused(409, "another device has answered this call", wire.ANSWERED_ELSEWHERE, state=call.status)
        return self._step(call, "accept", answered_by=device_id)

    def reject(self, call_id: str, actor: str) -> Stepped:
        """The callee declines."""
        return self._step(self._as_callee(call_id, actor, "reject"), "reject")

    def say_busy(self, call_id: str, actor: str) -> Stepped:
        """The callee is on another call."""
        return self._step(self._as_callee(call_id, actor, "be busy"), "say_busy")

    def end(self, call_id: str, actor: str, device_id: str | None) -> Stepped:
        """The caller cancels or hangs up, or the device that answered hangs up.

        A callee never ends before the answer: that would end the call which its other device has just answered.
        """
        call = self.of_party(call_id, actor)
        if actor == call.caller_identity:
            reason = CALLER_HUNG_UP if call.answered_at else CANCELLED
        else:
            reason = CALLEE_HUNG_UP
            if call.status in (UTDCallStatus.INITIATING, UTDCallStatus.RINGING):
                raise Refused(409, "not answered yet: a callee rejects, or says that it is busy", wire.NOT_ANSWERED,
                              state=call.status)  # fmt: skip
            if call.status is UTDCallStatus.ACTIVE:
                self.must_have_answered(call, device_id)
        return self._step(call, "end", end_reason=reason)

    def may_rejoin(self, call_id: str, actor: str, device_id: str | None) -> UTDCall:
        """The call, if `actor` may be in its room now: its caller, or the device that answered.

        Raises: Refused: 403, 404; 409 for a finished call, an unanswered one, or another device's.
        """
        call = self.of_party(call_id, actor)
        if call.status.is_terminal:
            raise Refused(409, f"the call is {call.status}", wire.ILLEGAL_TRANSITION, state=call.status)
        if actor == call.callee_identity:
            if call.status is not UTDCallStatus.ACTIVE:
                raise Refused(409, "not answered yet: accept first", wire.NOT_ANSWERED, state=call.status)
            self.must_have_answered(call, device_id)
        return call

    def ring_timeout(self, call_id: str) -> Stepped | None:
        """Nobody answered in time; None if that is no longer so."""
        return self._if_declared(call_id, "ring_timeout")

    def cut(self, call_id: str, reason: str) -> Stepped | None:
        """The engine ends the call; None if it is over already."""
        return self._if_declared(call_id, "cut", end_reason=reason)

    def of_party(self, call_id: str, actor: str) -> UTDCall:
        """The call, if `actor` is one of its two parties.

        Raises: Refused: 403, 404.
        """
        call = self.get(call_id)
        if actor not in (call.caller_identity, call.callee_identity):
            raise Refused(403, "not a party of this call", "not_a_party")
        return call

    def must_have_answered(self, call: UTDCall, device_id: str | None) -> None:
        """Refuse a device of the callee that isn't the one that answered. A client that sends no device is let pass.

        Raises: Refused: 409 ``answered_elsewhere``.
        """
        if device_id is not None and call.answered_by is not None and device_id != call.answered_by:
            raise Refused(409, "another device has answered this call", wire.ANSWERED_ELSEWHERE, state=call.status)

    def _as_callee(self, call_id: str, actor: str, what: str) -> UTDCall:
        call = self.of_party(call_id, actor)
        if actor != call.callee_identity:
            raise Refused(403, f"only the callee can {what}", "only_callee")
        return call

    def _if_declared(self, call_id: str, event: str, *, end_reason: str | None = None) -> Stepped | None:
        call = self._store.call(call_id)
        if call is None or not start(CallRecord, call.status).can(event):
            return None
        return self._step(call, event, end_reason=end_reason)

    def _step(
        self, call: UTDCall, event: str, *, answered_by: str | None = None, end_reason: str | None = None
    ) -> Stepped:
        """One step of the machine, one version."""
        runner = start(CallRecord, call.status)
        if not runner.can(event):
            told = f"not possible: the call is {call.status}"
            raise Refused(409, told, wire.ILLEGAL_TRANSITION, state=call.status)
        runner.send(event)
        status = UTDCallStatus(runner.state)
        if status is call.status:
            return Stepped(call, changed=False)
        moment = now()
        after = replace(
            call,
            status=status,
            version=(call.version or 0) + 1,
            ringing_at=moment if status is UTDCallStatus.RINGING else call.ringing_at,
            answered_at=moment if status is UTDCallStatus.ACTIVE else call.answered_at,
            answered_by=answered_by if status is UTDCallStatus.ACTIVE else call.answered_by,
            ended_at=moment if status.is_terminal else None,
            end_reason=end_reason if status is UTDCallStatus.ENDED else None,
        )
        return Stepped(self._store.save_step(after), changed=True)
