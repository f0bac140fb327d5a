"""What the routes take: the shape of every request's body and of every answer, as the OpenAPI page shows them.

Names are the wire contract's. Unknown keys are ignored, as the contract's readers do; what is malformed is a 422 that
names the field. Nothing here reads or changes anything.
"""

from __future__ import annotations

import json
import unicodedata
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from utd_fsm import wire
from utd_fsm.models import UTDRole, UTDSeatMode, UTDStreamType

MAX_METADATA = 16 * 1024


def _plain(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be blank")
    if any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise ValueError("must not contain control characters")
    return value


def _type(value: object) -> object:
    return wire.TYPE_ALIASES.get(value, value) if isinstance(value, str) else value


def _call_type(value: UTDStreamType) -> UTDStreamType:
    if not value.is_call:
        raise ValueError("must be audio_call or video_call")
    return value


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(value, ensure_ascii=False, allow_nan=False).encode())
    except (ValueError, RecursionError):
        raise ValueError("must be plain JSON: no NaN, no infinity, no lone surrogates") from None
    if size > MAX_METADATA:
        raise ValueError(f"must be at most {MAX_METADATA} bytes of JSON")
    return value


def _mode_id(value: str | int) -> str | int:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("must be Unicode") from None
    elif abs(value) >= 2**53:
        raise ValueError("must be less than 2**53")
    return value


Identity = Annotated[str, Field(min_length=1, max_length=wire.MAX_IDENTITY), AfterValidator(_plain)]
Name = Annotated[str, Field(min_length=1, max_length=wire.MAX_NAME), AfterValidator(_plain)]
RoomName = Annotated[str, Field(min_length=1, max_length=wire.MAX_ROOM_NAME), AfterValidator(_plain)]
DeviceId = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_plain)]
Os = Annotated[str, Field(max_length=wire.DEVICE_FACTS["os"])]
_WIRE_TYPES = WithJsonSchema({"type": "string", "enum": [*UTDStreamType, *wire.TYPE_ALIASES]})
_CALL_TYPES = WithJsonSchema({"type": "string", "enum": ["audio_call", "video_call", *wire.TYPE_ALIASES]})
AnyType = Annotated[UTDStreamType, BeforeValidator(_type), _WIRE_TYPES]
CallType = Annotated[UTDStreamType, BeforeValidator(_type), AfterValidator(_call_type), _CALL_TYPES]
ModeId = Annotated[str | int, AfterValidator(_mode_id)]
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="ignore")


class ByIdentity(_Body):
    """Who does it: the bearer's own identity."""

    identity: Identity


class ByDevice(ByIdentity):
    """Who does it, with which device."""

    device_id: DeviceId | None = Field(
        None, description="Ours: the answering device is remembered, so that two devices cannot both believe they won."
    )


class AcceptCall(ByDevice):
    """The answer to a call."""

    os: Os | None = None


class CreateCall(_Body):
    """A new call."""

    caller_identity: Identity
    callee_identity: Identity
    caller_name: Name | None = None
    callee_name: Name | None = None
    type: CallType
    metadata: Metadata | None = Field(None, description=f"At most {MAX_METADATA} bytes of JSON.")
    os: Os | None = None


class OpenSession(ByDevice):
    """A user signs in, without a room."""

    name: Name | None = None
    os: Os | None = None


class MintToken(ByDevice):
    """A user wants into a room."""

    room_name: RoomName
    type: AnyType
    role: UTDRole = Field(UTDRole.AUDIENCE, description="Only a room's owner is host; other claims become audience.")
    name: Name | None = None
    image: Annotated[str, Field(max_length=2048)] | None = None
    room_owner_id: Identity | None = None
    metadata: Metadata | None = None
    seat_count: Annotated[int, Field(ge=1, le=100)] | None = None
    seat_mode: UTDSeatMode | None = None
    host_seat: Annotated[int, Field(ge=0, le=99)] | None = None
    mode_id: ModeId | None = None
    device_model: Annotated[str, Field(max_length=wire.DEVICE_FACTS["device_model"])] | None = None
    os: Os | None = None
    os_version: Annotated[str, Field(max_length=wire.DEVICE_FACTS["os_version"])] | None = None
    app_version: Annotated[str, Field(max_length=wire.DEVICE_FACTS["app_version"])] | None = None


# --- answers, for the OpenAPI page


class Refusal(BaseModel):
    """Why not. Nothing has changed."""

    message: str
    code: str | None = None
    status: str | None = Field(None, description="The call's state, where a call refused.")


class Health(BaseModel):
    """The engine runs."""

    status: Literal["ok"]


class CallRecord(BaseModel):
    """A call as the engine keeps it. `version` grows with every change, across restarts too (ours)."""

    id: int | str
    call_id: str
    type: Literal["audio_call", "video_call"]
    status: Literal["initiating", "ringing", "active", "ended", "rejected", "busy", "missed"]
    caller_identity: str
    caller_name: str | None
    callee_identity: str
    callee_name: str | None
    metadata: dict[str, Any]
    room_name: str
    initiated_at: str
    ringing_at: str | None
    answered_at: str | None
    ended_at: str | None
    end_reason: str | None
    duration_seconds: float | None
    ring_duration_seconds: float | None
    answered_by: str | None
    version: int


class CallTicket(CallRecord):
    """A call, and the way into its media room."""

    token: str
    url: str


class Pagination(BaseModel):
    """Where in the list."""

    page: int
    per_page: int
    total: int
    total_pages: int


class CallPage(BaseModel):
    """Calls, newest first."""

    data: list[CallRecord]
    pagination: Pagination


class Session(BaseModel):
    """A user's bearer, and where the engine socket is."""

    user_token: str
    ws_url: str
    signaling_enabled: bool
    messaging_enabled: bool
    limits: dict[str, float]


class RoomToken(BaseModel):
    """The way into a room."""

    token: str
    url: str
    room_name: str
    user_token: str
    ws_url: str
