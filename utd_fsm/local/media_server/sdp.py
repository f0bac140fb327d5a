"""Session descriptions at text level: only what libwebrtc writes and reads (RFC 8829), and only what a relay needs.

Pure functions: sections in, lines out. No state of a connection is kept here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from .dependency import URI as DEPENDENCY_URI
from .rtp import ABS_SEND_TIME_URI, AUDIO_LEVEL_URI, MID_URI, REPAIRED_RID_URI, RID_URI

RELAYED = {"audio": ("opus",), "video": ("VP8", "H264", "VP9", "AV1")}
"""Codecs by media kind, in the order of preference where the publisher has none."""

_FEEDBACK = ("ccm fir", "nack", "nack pli", "goog-remb")
_EXTENSIONS = {
    "audio": (AUDIO_LEVEL_URI, ABS_SEND_TIME_URI),
    # Every video section, whatever its direction, must agree on these three, or the client's next offer fails
    # (LiveKit facts, 41).
    "video": (ABS_SEND_TIME_URI, MID_URI, RID_URI, REPAIRED_RID_URI),
}
OUR_DEPENDENCY_ID = 1
"""Under which our own offers have the dependency descriptor."""
_LAYER_RANK = {"q": 0, "h": 1, "f": 2}


@dataclass(frozen=True, slots=True)
class Codec:
    """One payload type of a section.

    Attributes:
        payload_type: its number in that description.
        mapping: what follows it in ``a=rtpmap``, for instance ``VP8/90000``.
        feedback: the RTCP feedback it may use.
        parameters: its ``a=fmtp`` value, or None.
    """

    payload_type: int
    mapping: str
    feedback: tuple[str, ...] = ()
    parameters: str | None = None

    @property
    def name(self) -> str:
        return self.mapping.split("/")[0]

    def with_parameter(self, parameter: str) -> Codec:
        if self.parameters and parameter in self.parameters.split(";"):
            return self
        return replace(self, parameters=f"{self.parameters};{parameter}" if self.parameters else parameter)

    def lines(self) -> list[str]:
        number = self.payload_type
        lines = [f"a=rtpmap:{number} {self.mapping}", *(f"a=rtcp-fb:{number} {item}" for item in self.feedback)]
        if self.parameters:
            lines.append(f"a=fmtp:{number} {self.parameters}")
        return lines


@dataclass(frozen=True, slots=True)
class Section:
    """One ``m=`` section: its first line and its attributes, in order."""

    media: str
    lines: tuple[str, ...]

    @property
    def kind(self) -> str:
        return self.media[2:].split(" ", 1)[0]

    @property
    def formats(self) -> list[str]:
        return self.media.split()[3:]

    def get(self, name: str) -> str | None:
        """The first ``a=name`` attribute: "" where it has no value, None where it is missing."""
        return next(iter(self.all(name)), None)

    def all(self, name: str) -> list[str]:
        """Every ``a=name`` attribute's value, in order."""
        bare, head = f"a={name}", f"a={name}:"
        return [
            "" if line == bare else line[len(head) :] for line in self.lines if line == bare or line.startswith(head)
        ]

    @property
    def mid(self) -> str:
        return self.get("mid") or ""

    @property
    def direction(self) -> str:
        found = (item for item in ("sendrecv", "sendonly", "recvonly", "inactive") if f"a={item}" in self.lines)
        return next(found, "sendrecv")

    @property
    def sends(self) -> bool:
        return self.direction in ("sendonly", "sendrecv")

    @property
    def track_id(self) -> str:
        """The client's own id of the track it sends here ("" where it names none)."""
        words = (self.get("msid") or "").split()
        return words[-1] if words else ""

    @property
    def ssrc(self) -> int:
        """The announced SSRC; 0 where the client leaves that to the first packets (simulcast does)."""
        first = (self.get("ssrc") or "").split(" ", 1)[0]
        return int(first) if first.isdigit() else 0

    @property
    def rids(self) -> list[str]:
        """The restriction ids of a simulcast sender, in the offer's order; empty where there is one stream only."""
        if self.get("simulcast") is None:
            return []
        words = [value.split() for value in self.all("rid")]
        return [word[0] for word in words if len(word) > 1 and word[1] == "send"]

    @property
    def sctp_port(self) -> int | None:
        port = self.get("sctp-port")
        return int(port) if port and port.isdigit() else None

    def extension(self, uri: str) -> int:
        """The id of a header extension, 0 where it is not offered."""
        for value in self.all("extmap"):
            words = value.split()
            number = words[0].split("/")[0] if words else ""
            if len(words) > 1 and words[1] == uri and number.isdigit():
                return int(number)
        return 0

    def extension_lines(self, *, dependencies: bool = False) -> list[str]:
        """The offered header extensions that an answer keeps.

        Args:
            dependencies: the dependency descriptor, too: AV1's layers are known by it only.
        """
        number = self.extension(DEPENDENCY_URI) if dependencies else 0
        kept = _EXTENSIONS.get(self.kind, ())
        offered = (value.split() for value in self.all("extmap"))
        lines = [f"a=extmap:{' '.join(words)}" for words in offered if len(words) > 1 and words[1] in kept]
        return [*lines, *dependency_lines(number)]

    def codecs(self) -> list[Codec]:
        """The codecs of this section that can be relayed, in the section's own order."""
        mappings = dict(value.split(" ", 1) for value in self.all("rtpmap") if " " in value)
        feedback: dict[str, set[str]] = {}
        for value in self.all("rtcp-fb"):
            number, _, item = value.partition(" ")
            feedback.setdefault(number, set()).add(item)
        parameters = dict(value.split(" ", 1) for value in self.all("fmtp") if " " in value)
        names = {name.lower() for name in RELAYED.get(self.kind, ())}
        return [
            Codec(
                int(number),
                mappings[number],
                tuple(item for item in _FEEDBACK if item in feedback.get(number, ())),
                parameters.get(number),
            )
            for number in self.formats
            if number.isdigit() and number in mappings and mappings[number].split("/")[0].lower() in names
        ]


def parse(text: str) -> list[Section]:
    """The sections of a description. Lines before the first ``m=`` are not needed by a relay and are left out."""
    sections: list[tuple[str, list[str]]] = []
    for raw in text.replace("\r\n", "\n").split("\n"):
        line = raw.strip()
        if line.startswith("m="):
            sections.append((line, []))
        elif sections and line:
            sections[-1][1].append(line)
    return [Section(media, tuple(lines)) for media, lines in sections]


def lowest_first(rids: Iterable[str]) -> list[str]:
    """LiveKit's layer names by their size: q, h, f; names of others keep their order behind these."""
    return sorted(rids, key=lambda rid: _LAYER_RANK.get(rid, len(_LAYER_RANK)))


def choose_codec(section: Section, preferred: str | None = None) -> Codec | None:
    """What a publisher is told to send.

    Args:
        section: its section.
        preferred: a codec's name it asked for (``AddTrackRequest``), taken where it is offered.

    Returns:
        One codec, or None where nothing offered can be relayed.
    """
    offered = section.codecs()
    for name in (*((preferred,) if preferred else ()), *RELAYED.get(section.kind, ())):
        for codec in offered:
            if codec.name.lower() == name.lower():
                return codec
    return None


def match_codec(section: Section, wanted: Codec) -> Codec | None:
    """Under what a subscriber's own section receives `wanted`: the same parameters first, then the same name."""
    same = [codec for codec in section.codecs() if codec.name.lower() == wanted.name.lower()]
    return next((codec for codec in same if codec.parameters == wanted.parameters), same[0] if same else None)


def description(sections: Sequence[Sequence[str]], mids: Iterable[str]) -> str:
    """The whole text over finished sections."""
    lines = [
        "v=0",
        f"o=- {time.time_ns()} 2 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE " + " ".join(mids),
        "a=msid-semantic: WMS *",
    ]
    for section in sections:
        lines += section
    return "\r\n".join(lines) + "\r\n"


def media_section(
    kind: str, mid: str, codec: Codec, direction: str, transport: Sequence[str], extra: Sequence[str]
) -> list[str]:
    """One media section with a single codec. `transport`: its ICE and DTLS lines; `extra`: what comes last."""
    return [
        f"m={kind} 9 UDP/TLS/RTP/SAVPF {codec.payload_type}",
        *transport,
        f"a=mid:{mid}",
        f"a={direction}",
        "a=rtcp-mux",
        "a=rtcp-rsize",
        *codec.lines(),
        *extra,
    ]


def rejected_section(section: Section, transport: Sequence[str]) -> list[str]:
    """The answer to a section nothing of which can be relayed: port 0, the connection itself stays."""
    formats = " ".join(section.formats)
    return [f"m={section.kind} 0 UDP/TLS/RTP/SAVPF {formats}", *transport, f"a=mid:{section.mid}", "a=inactive"]


def data_section(section: Section, transport: Sequence[str], max_message_size: int) -> list[str]:
    """The answer to the data channels' section."""
    limits = ["a=sctp-port:5000", f"a=max-message-size:{max_message_size}"]
    return [section.media, *transport, f"a=mid:{section.mid}", *limits]


def source_lines(owner: str, track: str, ssrc: int) -> list[str]:
    """What tells a subscriber whose track a section carries, and under which SSRC."""
    stream = f"{owner}|{track}"
    return [f"a=msid:{stream} {track}", f"a=ssrc:{ssrc} cname:{owner}", f"a=ssrc:{ssrc} msid:{stream} {track}"]


def dependency_lines(number: int) -> list[str]:
    """The dependency descriptor under that id; nothing for 0.

    A key frame's is longer than the 16 bytes that a one-byte header can announce; where libwebrtc may not use the other
    kind, it sends none at all.
    """
    return ["a=extmap-allow-mixed", f"a=extmap:{number} {DEPENDENCY_URI}"] if number else []


def simulcast_lines(rids: Sequence[str]) -> list[str]:
    """Accepts every layer of a simulcast sender, in the order given."""
    return [*(f"a=rid:{rid} recv" for rid in rids), "a=simulcast:recv " + ";".join(rids)] if rids else []
