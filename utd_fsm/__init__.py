"""utd_fsm: calls, live streams and audio rooms on the UTD stream engine and LiveKit, for ordinary blocking Python.

Every lifecycle is a declared state machine; what is declared is what is drawn and what the tests search. A background
thread runs the event loop; changes reach the caller as blinker signals and as values that can be waited for.

Importing this package is cheap and starts nothing: what is below loads at its first use.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from utd_fsm.errors import (
    UTDClosedError,
    UTDConflictError,
    UTDConnectionError,
    UTDEngineError,
    UTDForbiddenError,
    UTDInputError,
    UTDPermissionError,
    UTDProtocolError,
    UTDStateError,
    UTDStreamException,
    UTDTimeoutError,
    UTDWouldBlockError,
)

if TYPE_CHECKING:
    from utd_fsm import signals, webhooks
    from utd_fsm.client import UTDAudioRoomSession, UTDCallSession, UTDLiveStreamSession, UTDRoom, UTDStreamClient
    from utd_fsm.models import (
        UTDCall,
        UTDCallPage,
        UTDCallStatus,
        UTDChatMessage,
        UTDConnectionState,
        UTDParticipant,
        UTDRecording,
        UTDRole,
        UTDRoomEvent,
        UTDSeatMode,
        UTDSpeaker,
        UTDStreamType,
        UTDTokenResponse,
        UTDTrack,
        UTDTrackSource,
        UTDWebhook,
    )
    from utd_fsm.observable import Observable
    from utd_fsm.room_models import (
        UTDBan,
        UTDBanPage,
        UTDBroadcast,
        UTDHand,
        UTDInvitation,
        UTDRoleChange,
        UTDSeat,
        UTDSeatGrid,
        UTDSpeakerRequest,
        UTDStage,
        UTDStageMember,
    )

__version__ = "0.1.0"

# The library configures no logging; the application does.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_LAZY = {
    "Observable": "utd_fsm.observable",
    "UTDAudioRoomSession": "utd_fsm.client",
    "UTDBan": "utd_fsm.room_models",
    "UTDBanPage": "utd_fsm.room_models",
    "UTDBroadcast": "utd_fsm.room_models",
    "UTDCall": "utd_fsm.models",
    "UTDCallPage": "utd_fsm.models",
    "UTDCallSession": "utd_fsm.client",
    "UTDCallStatus": "utd_fsm.models",
    "UTDChatMessage": "utd_fsm.models",
    "UTDConnectionState": "utd_fsm.models",
    "UTDHand": "utd_fsm.room_models",
    "UTDInvitation": "utd_fsm.room_models",
    "UTDLiveStreamSession": "utd_fsm.client",
    "UTDParticipant": "utd_fsm.models",
    "UTDRecording": "utd_fsm.models",
    "UTDRole": "utd_fsm.models",
    "UTDRoleChange": "utd_fsm.room_models",
    "UTDRoom": "utd_fsm.client",
    "UTDRoomEvent": "utd_fsm.models",
    "UTDSeat": "utd_fsm.room_models",
    "UTDSeatGrid": "utd_fsm.room_models",
    "UTDSeatMode": "utd_fsm.models",
    "UTDSpeaker": "utd_fsm.models",
    "UTDSpeakerRequest": "utd_fsm.room_models",
    "UTDStage": "utd_fsm.room_models",
    "UTDStageMember": "utd_fsm.room_models",
    "UTDStreamClient": "utd_fsm.client",
    "UTDStreamType": "utd_fsm.models",
    "UTDTokenResponse": "utd_fsm.models",
    "UTDTrack": "utd_fsm.models",
    "UTDTrackSource": "utd_fsm.models",
    "UTDWebhook": "utd_fsm.models",
}
_MODULES = ("aio", "media", "signals", "testing", "webhooks")

__all__ = [
    "Observable",
    "UTDAudioRoomSession",
    "UTDBan",
    "UTDBanPage",
    "UTDBroadcast",
    "UTDCall",
    "UTDCallPage",
    "UTDCallSession",
    "UTDCallStatus",
    "UTDChatMessage",
    "UTDClosedError",
    "UTDConflictError",
    "UTDConnectionError",
    "UTDConnectionState",
    "UTDEngineError",
    "UTDForbiddenError",
    "UTDHand",
    "UTDInputError",
    "UTDInvitation",
    "UTDLiveStreamSession",
    "UTDParticipant",
    "UTDPermissionError",
    "UTDProtocolError",
    "UTDRecording",
    "UTDRole",
    "UTDRoleChange",
    "UTDRoom",
    "UTDRoomEvent",
    "UTDSeat",
    "UTDSeatGrid",
    "UTDSeatMode",
    "UTDSpeaker",
    "UTDSpeakerRequest",
    "UTDStage",
    "UTDStageMember",
    "UTDStateError",
    "UTDStreamClient",
    "UTDStreamException",
    "UTDStreamType",
    "UTDTimeoutError",
    "UTDTokenResponse",
    "UTDTrack",
    "UTDTrackSource",
    "UTDWebhook",
    "UTDWouldBlockError",
    "__version__",
    "signals",
    "webhooks",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        value = getattr(import_module(_LAZY[name]), name)
    elif name in _MODULES:
        value = import_module(f"utd_fsm.{name}")
    else:
        raise AttributeError(f"module 'utd_fsm' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_MODULES})
