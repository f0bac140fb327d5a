"""The module-level signals of the package: blinker's, sent on the signals thread.

A receiver is called with the sender and keyword arguments; take ``**extra`` too, for what later versions add and for
``dropped`` (how many emissions of this signal from this sender were lost before this one, when the queue was full).
Receivers run on one thread, in the order of the emissions (``seq`` counts per session), each isolated from the others'
exceptions, and may call blocking methods. A receiver gets what is emitted after it was connected. Signals hold their
receivers weakly, as blinker does: a lambda or a local function needs ``weak=False``, or lives in a variable of yours.

Knows nothing of calls or rooms: sessions emit, this module delivers.
"""

from __future__ import annotations

from utd_fsm.dispatcher import ReceiverErrorHook, dispatcher, on_receiver_error
from utd_fsm.observable import AsyncObservable, BaseObservable, Observable
from utd_fsm.signal import UTDSignal, UTDWeakReceiverWarning

__all__ = [
    "AsyncObservable",
    "BaseObservable",
    "Observable",
    "ReceiverErrorHook",
    "UTDSignal",
    "UTDWeakReceiverWarning",
    "banned",
    "broadcast_changed",
    "call_status_changed",
    "can_publish_changed",
    "chat_locked_changed",
    "chat_received",
    "connection_changed",
    "data_received",
    "drain",
    "hands_changed",
    "incoming_call",
    "invited",
    "on_receiver_error",
    "remote_participants_changed",
    "requests_changed",
    "role_changed",
    "seats_changed",
    "speakers_changed",
    "stage_changed",
    "webhook_received",
]


def drain(timeout: float | None = 30.0) -> None:
    """Wait until everything emitted so far was delivered. Not from a receiver.

    Args:
        timeout: seconds, or None for no limit.

    Raises:
        UTDTimeoutError: a receiver takes longer than that; nothing is lost.
        UTDWouldBlockError: called by a receiver, on the loop thread, or where an event loop runs.
        UTDInputError: the timeout is not a number, NaN, or negative.
    """
    dispatcher().drain(timeout)


_VALUE = "``value``, ``previous``, ``seq``. Sender: the session. On the signals thread."

incoming_call = UTDSignal(
    "incoming_call", "``call``: the UTDCall that rings. Sender: the client. On the signals thread."
)
call_status_changed = UTDSignal("call_status_changed", f"{_VALUE} Values: UTDCallStatus or None.")
connection_changed = UTDSignal("connection_changed", f"{_VALUE} Values: the connection's state.")
can_publish_changed = UTDSignal("can_publish_changed", f"{_VALUE} Values: whether the engine lets me publish.")
remote_participants_changed = UTDSignal("remote_participants_changed", f"{_VALUE} Values: tuples of UTDParticipant.")
speakers_changed = UTDSignal("speakers_changed", f"{_VALUE} Values: tuples of UTDSpeaker.")
broadcast_changed = UTDSignal("broadcast_changed", f"{_VALUE} Values: waiting, live, host_away, ended.")
stage_changed = UTDSignal("stage_changed", f"{_VALUE} Values: tuples of UTDStageMember.")
hands_changed = UTDSignal("hands_changed", f"{_VALUE} Values: tuples of raised hands, oldest first.")
seats_changed = UTDSignal("seats_changed", f"``changed_indexes`` and {_VALUE} Values: UTDSeatGrid.")
requests_changed = UTDSignal("requests_changed", f"{_VALUE} Values: tuples of requests to speak, oldest first.")
chat_locked_changed = UTDSignal("chat_locked_changed", f"{_VALUE} Values: whether the chat is locked.")
invited = UTDSignal("invited", "``invitation``. Sender: the session. On the signals thread.")
role_changed = UTDSignal(
    "role_changed", "``identity``, ``role``, ``previous``. Sender: the session. On the signals thread."
)
chat_received = UTDSignal("chat_received", "``message``. Sender: the session. On the signals thread.")
data_received = UTDSignal(
    "data_received",
    "``data``, ``identity`` (None where LiveKit names no sender), ``topic``, ``reliable``. "
    "Sender: the session. On the signals thread.",
)
banned = UTDSignal("banned", "``reason``, ``expires_at``, ``room_name``. Sender: the session. On the signals thread.")
webhook_received = UTDSignal(
    "webhook_received",
    "``webhook``: a UTDWebhook. Sent with ``send`` inside the request, in its thread, so that an error of a receiver "
    "makes the engine try again.",
)
