"""Names, versions and times the parts of the media server share. Knows nothing else of the package."""

from __future__ import annotations

import secrets
import string

from livekit.protocol import models

SERVER_VERSION = "1.9.0"
"""The LiveKit release whose signalling is spoken; clients switch features by it."""
PROTOCOL = 16
"""The signalling protocol's number, as clients know it."""

RESUME_WINDOW = 15.0
"""Seconds a participant is kept after its signalling link was lost without a `leave` (LiveKit facts, 42)."""
SIGNAL_SILENCE = 30.0
"""Seconds without any signalling message after which the link counts as lost; clients ping every 5 s."""
JOIN_TIMEOUT = 30.0
"""Seconds from the socket until media must be up."""
PING_INTERVAL = 5
PING_TIMEOUT = 15
EMPTY_TIMEOUT = 300
"""Seconds a room nobody ever joined stays open, unless its creator said otherwise."""
DEPARTURE_TIMEOUT = 20
"""Seconds a room stays open after the last one left, unless its creator said otherwise."""
MAX_MESSAGE_SIZE = 262_144
"""Bytes of one data-channel message, as announced in the SDP."""
MAX_WAITING_DATA = 1_000
"""Reliable messages kept for a participant whose data channel is not open yet."""

SERVER_INFO = models.ServerInfo(version=SERVER_VERSION, protocol=PROTOCOL, node_id="utd-embedded")

_ALPHABET = string.ascii_letters + string.digits


def new_sid(prefix: str) -> str:
    """A fresh server id such as ``PA_x7Kd…`` (``PA_`` participant, ``RM_`` room, ``TR_`` track, ``EV_`` event)."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(12))
