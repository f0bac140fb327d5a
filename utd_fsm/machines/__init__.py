"""The declared state machines: what runs is what is drawn (diagrams/) and what the tests search.

Three kinds. *Records* are the engine's master copies (`CallRecord`, `StageRecord`, `SpeakerRecord`, `Seat`): an
undeclared event is a 409. *Views* are one party's picture of a record (`OutgoingCall`, `IncomingCall`, `StageMember`,
`Speaker`): the record's states, plus one pending state per intention. *Media* machines follow LiveKit (`Connection`,
`Source`, `Broadcast`). Intentions are verbs, observations begin with ``saw_``, the rest are results, timers and
``lapsed``: our request is over, the engine has been heard since, and the wish is not there.

No machine has guards: what depends on data (role, mode, tries left) is asked before the event is sent. Importing this
package imports python-statemachine; `import utd_fsm` does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from utd_fsm.machines.base import (
    OBSERVED,
    Machine,
    Runner,
    Step,
    allowed,
    events,
    observations,
    start,
    step,
    table,
)
from utd_fsm.machines.call import CallRecord, IncomingCall, OutgoingCall
from utd_fsm.machines.connection import Connection
from utd_fsm.machines.seat import Seat
from utd_fsm.machines.source import Source
from utd_fsm.machines.speaker import Speaker, SpeakerRecord
from utd_fsm.machines.stage import Broadcast, StageMember, StageRecord

ALL: Final[tuple[type[Machine], ...]] = (
    CallRecord,
    OutgoingCall,
    IncomingCall,
    Connection,
    Source,
    StageRecord,
    StageMember,
    Broadcast,
    Seat,
    SpeakerRecord,
    Speaker,
)
"""Every declared machine. Diagrams, tables and the tests over all machines are made from this."""

VIEW_OF: Final[Mapping[type[Machine], type[Machine]]] = MappingProxyType(
    {OutgoingCall: CallRecord, IncomingCall: CallRecord, StageMember: StageRecord, Speaker: SpeakerRecord}
)
"""View → the record it is a picture of."""

__all__ = [
    "ALL",
    "OBSERVED",
    "VIEW_OF",
    "Broadcast",
    "CallRecord",
    "Connection",
    "IncomingCall",
    "Machine",
    "OutgoingCall",
    "Runner",
    "Seat",
    "Source",
    "Speaker",
    "SpeakerRecord",
    "StageMember",
    "StageRecord",
    "Step",
    "allowed",
    "events",
    "observations",
    "start",
    "step",
    "table",
]
