"""The engine's own rules and store in this process, for sessions on rooms in memory: deterministic, hostile on demand.

`MemoryEngine` runs the shipped rules (`utd_fsm.local.engine.calls`, `idempotency`) on SQLite in memory; each request is
one transaction, as in the real one. `Device` is one signed-in device: what a session asks of the engine (`CallEngine`).
A test may hold a verb at a gate before it is applied, lose a request, lose its answer, and hold back, drop or repeat
the records that are pushed to whoever watches.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from utd_fsm import wire
from utd_fsm.errors import UTDConflictError, UTDConnectionError, UTDEngineError, UTDForbiddenError
from utd_fsm.local.engine import idempotency
from utd_fsm.local.engine.calls import Calls, Stepped
from utd_fsm.local.engine.idempotency import Answer
from utd_fsm.local.engine.refusal import Refused
from utd_fsm.local.engine.store import Store
from utd_fsm.models import UTDCall, UTDCallTicket, UTDStreamType, UTDTrackSource
from utd_fsm.room import Permission
from utd_fsm.testing import MemoryServer

Watcher = Callable[[UTDCall], None]
MAY_SPEAK = Permission(can_publish=True, sources=frozenset({UTDTrackSource.MICROPHONE, UTDTrackSource.CAMERA}))


class MemoryEngine:
    """One engine. Belongs to the loop it was made on."""

    def __init__(self, *, paced: bool = False) -> None:
        self.media = MemoryServer(paced=paced)
        self.store = Store(":memory:")
        self.calls = Calls(self.store)
        self.watchers: dict[str, list[Watcher]] = defaultdict(list)
        self.pushing = True
        """Whether records are pushed; a test that says no decides itself what is heard (`push`)."""
        self.unreachable = False

    def close(self) -> None:
        self.store.close()

    def device(self, identity: str, device_id: str = "device") -> Device:
        return Device(self, identity, device_id)

    def truth(self, call_id: str) -> UTDCall:
        """What the engine knows: the oracle."""
        return self.calls.get(call_id)

    def open_calls(self) -> list[UTDCall]:
        return self.store.open_calls()

    def push(self, record: UTDCall) -> None:
        """Tell whoever watches this call."""
        for watcher in tuple(self.watchers[record.call_id]):
            watcher(record)

    def apply(self, identity: str, key: str | None, route: str, verb: Callable[[], Stepped], **body: Any) -> UTDCall:
        """One request, one transaction."""
        parsed = idempotency.parse(key)
        print_ = idempotency.fingerprint(route, body)
        changed: UTDCall | None = None
        refused: Refused | None = None
        with self.store.transaction():
            try:
                known = None if parsed is None else idempotency.recall(self.store, identity, parsed, print_)
            except Refused as refusal:
                raise _error(refusal, route) from None
            if known is None:
                try:
                    stepped = verb()
                    record = stepped.call
                    changed = record if stepped.changed else None
                    answer = Answer(200, wire.call_json(record))
                except Refused as refusal:
                    refused = refusal
                    answer = Answer(refusal.status, refusal.body())
                if parsed is not None:
                    idempotency.remember(self.store, identity, parsed, print_, answer, at=time.time())
            else:
                answer = known
        if changed is not None:
            self.committed(changed)
        if refused is not None or answer.status >= 400:
            kept = answer.body
            raise _error(refused or Refused(answer.status, str(kept.get("message")), str(kept.get("code"))), route)
        return wire.read_call(dict(answer.body), route)

    def by_itself(self, event: Callable[[], Stepped | None]) -> None:
        """A timer of the engine strikes."""
        with self.store.transaction():
            stepped = event()
        if stepped is not None:
            self.committed(stepped.call)

    def committed(self, record: UTDCall) -> None:
        if self.pushing:
            self.push(record)
        if record.status.is_terminal and record.call_id in self.media.rooms:
            self.media.delete_room(record.call_id)

    def ticket(self, record: UTDCall, identity: str) -> UTDCallTicket:
        token = self.media.token(identity, record.call_id, permission=MAY_SPEAK)
        return UTDCallTicket(call=record, url=self.media.url, token=token)


class Device:
    """One device of one identity: `CallEngine`, with gates and losses."""

    def __init__(self, engine: MemoryEngine, identity: str, device_id: str) -> None:
        self.engine = engine
        self.identity = identity
        self.device_id = device_id
        self.gates: dict[str, asyncio.Event] = {}
        """Verb → what it waits for before it reaches the engine."""
        self.arrived: dict[str, asyncio.Event] = defaultdict(asyncio.Event)
        """Verb → set when it waits at its gate."""
        self.lose_request: set[str] = set()
        self.lose_answer: set[str] = set()
        self.sent: list[str] = []

    def watch(self, call_id: str, callback: Watcher) -> Callable[[], None]:
        """What a session follows its call with."""
        watchers = self.engine.watchers[call_id]
        watchers.append(callback)
        return lambda: watchers.remove(callback) if callback in watchers else None

    def hold(self, verb: str) -> asyncio.Event:
        """Hold the next requests of this verb; set the event to let them go."""
        gate = self.gates[verb] = asyncio.Event()
        return gate

    async def _ask(self, verb: str, do: Callable[[], Any]) -> Any:
        self.sent.append(verb)
        gate = self.gates.get(verb)
        if gate is not None:
            self.arrived[verb].set()
            await gate.wait()
        else:
            await asyncio.sleep(0)
        if self.engine.unreachable or verb in self.lose_request:
            self.lose_request.discard(verb)
            raise UTDConnectionError(f"{verb}: nobody answers", outcome_known=False)
        result = do()
        await asyncio.sleep(0)
        if verb in self.lose_answer:
            self.lose_answer.discard(verb)
            raise UTDConnectionError(f"{verb}: the answer was lost", outcome_known=False)
        return result

    async def create(
        self, callee: str, type: UTDStreamType, *, callee_name: str | None, metadata: Mapping[str, Any] | None, key: str
    ) -> UTDCallTicket:
        def verb() -> Stepped:
            call = self.engine.calls.create(
                caller=self.identity,
                callee=callee,
                type=type,
                caller_name=None,
                callee_name=callee_name,
                metadata=metadata or {},
                key=str(idempotency.parse(key)),
            )
            return Stepped(call, changed=True)

        def do() -> UTDCallTicket:
            record = self.engine.apply(self.identity, key, "create", verb, callee=callee)
            return self.engine.ticket(record, self.identity)

        return await self._ask("create", do)  # type: ignore[no-any-return]

    async def ring(self, call_id: str) -> UTDCall:
        calls = self.engine.calls
        return await self._record("ring", call_id, None, lambda: calls.ring(call_id, self.identity))

    async def accept(self, call_id: str, *, key: str) -> UTDCallTicket:
        def do() -> UTDCallTicket:
            record = self.engine.apply(
                self.identity,
                key,
                "accept",
                lambda: self.engine.calls.accept(call_id, self.identity, self.device_id),
                call_id=call_id,
            )
            return self.engine.ticket(record, self.identity)

        return await self._ask("accept", do)  # type: ignore[no-any-return]

    async def reject(self, call_id: str, *, key: str) -> UTDCall:
        calls = self.engine.calls
        return await self._record("reject", call_id, key, lambda: calls.reject(call_id, self.identity))

    async def busy(self, call_id: str, *, key: str) -> UTDCall:
        calls = self.engine.calls
        return await self._record("busy", call_id, key, lambda: calls.say_busy(call_id, self.identity))

    async def end(self, call_id: str, *, key: str) -> UTDCall:
        calls = self.engine.calls
        return await self._record("end", call_id, key, lambda: calls.end(call_id, self.identity, self.device_id))

    async def _record(self, name: str, call_id: str, key: str | None, verb: Callable[[], Stepped]) -> UTDCall:
        return await self._ask(  # type: ignore[no-any-return]
            name, lambda: self.engine.apply(self.identity, key, name, verb, call_id=call_id)
        )

    async def look(self, call_id: str, *, key: str | None = None) -> UTDCall:
        def do() -> UTDCall:
            if parsed := idempotency.parse(key):
                with self.engine.store.transaction():
                    idempotency.seal(self.engine.store, self.identity, parsed, at=time.time())
            try:
                return self.engine.calls.of_party(call_id, self.identity)
            except Refused as refusal:
                raise _error(refusal, "look") from None

        return await self._ask("look", do)  # type: ignore[no-any-return]

    async def find(self, key: str) -> UTDCall | None:
        def do() -> UTDCall | None:
            parsed = idempotency.parse(key)
            assert parsed is not None
            with self.engine.store.transaction():
                idempotency.seal(self.engine.store, self.identity, parsed, at=time.time())
            return self.engine.store.call_by_key(self.identity, str(parsed))

        return await self._ask("find", do)  # type: ignore[no-any-return]

    async def rejoin(self, call_id: str) -> UTDCallTicket:
        def do() -> UTDCallTicket:
            try:
                record = self.engine.calls.may_rejoin(call_id, self.identity, self.device_id)
            except Refused as refusal:
                raise _error(refusal, "rejoin") from None
            return self.engine.ticket(record, self.identity)

        return await self._ask("rejoin", do)  # type: ignore[no-any-return]


def _error(refused: Refused, route: str) -> UTDEngineError:
    body = refused.body()
    text, code, state = wire.read_refusal(body)
    if refused.status == 409:
        return UTDConflictError(text, 409, code, state=state, event=route)
    if refused.status == 403:
        return UTDForbiddenError(text, 403, code)
    return UTDEngineError(text, refused.status, code)
