"""Which packets of a stream with spatial layers a subscriber gets, and under which numbers."""

from __future__ import annotations

import itertools
import struct

from hypothesis import given
from hypothesis import strategies as st

from tests.local.media_server.test_rtp import Publisher, Receiver, packet
from utd_fsm.local.media_server import rtp
from utd_fsm.local.media_server.layering import Part, Vp9Layering
from utd_fsm.local.media_server.numbering import Renumbering, SentPackets
from utd_fsm.local.media_server.sdp import Codec
from utd_fsm.local.media_server.svc_downstream import SvcDownstream
from utd_fsm.local.media_server.tracks import IncomingStream

LOW, MEDIUM, HIGH = 0, 1, 2


class _Track:
    """What an `SvcDownstream` looks at."""

    kind = "video"
    ssrc = 4242
    codec = Codec(98, "VP9/90000")

    def __init__(self) -> None:
        self.owner = Publisher()
        self.streams = {"": IncomingStream("", 7)}


class _Camera:
    """A VP9 sender with three layers of two packets each, and a subscriber of it."""

    def __init__(self, sequence: int = 65_530) -> None:
        self.receiver, self.track = Receiver(), _Track()
        self.downstream = SvcDownstream(self.receiver, self.track)  # type: ignore[arg-type]
        self.downstream.begin()
        self.sequence = sequence
        self.picture = 0
        self._layering = Vp9Layering()

    def make(self, *, key: bool) -> list[bytes]:
        """The next picture's six packets."""
        self.picture += 1
        made = []
        for spatial, last in itertools.product(range(3), (False, True)):
            first = 0xA0 | (0 if key else 0x40) | (0x04 if last else 0x08)
            payload = bytes([first, self.picture & 0x7F, spatial << 1]) + b"data"
            self.sequence = (self.sequence + 1) & 0xFFFF
            stamp = 3000 * self.picture
            marker = last and spatial == 2
            made.append(
                packet(payload, payload_type=98, sequence=self.sequence, timestamp=stamp, ssrc=7, marker=marker)
            )
        return made

    def give(self, packets: list[bytes]) -> list[bytes]:
        """Hands these to the subscription. Returns what the subscriber got of them."""
        before = len(self.receiver.packets)
        for data in packets:
            self.downstream.relay(self.track.streams[""], data, 1.0, self._layering.read(data))
        return self.receiver.packets[before:]

    def send(self, *, key: bool = False) -> list[bytes]:
        return self.give(self.make(key=key))

    def want(self, quality: int) -> None:
        self.downstream.settings_changed(disabled=False, quality=quality)


def layers(packets: list[bytes]) -> list[int]:
    return [data[14] >> 1 for data in packets]


def continuous(packets: list[bytes]) -> bool:
    sequences = [rtp.sequence_of(data) for data in packets]
    return all((later - earlier) & 0xFFFF == 1 for earlier, later in itertools.pairwise(sequences))


def test_nothing_before_a_key_picture_then_every_layer() -> None:
    camera = _Camera()
    assert camera.send() == []
    assert layers(camera.send(key=True)) == [0, 0, 1, 1, 2, 2]
    assert layers(camera.send()) == [0, 0, 1, 1, 2, 2]


def test_down_at_the_next_picture_up_at_a_key_picture() -> None:
    camera = _Camera()
    camera.send(key=True)
    camera.want(LOW)
    assert layers(camera.send()) == [0, 0]
    camera.want(MEDIUM)
    assert layers(camera.send()) == [0, 0]
    assert layers(camera.send(key=True)) == [0, 0, 1, 1]
    camera.want(HIGH)
    assert layers(camera.send()) == [0, 0, 1, 1]
    assert layers(camera.send(key=True)) == [0, 0, 1, 1, 2, 2]
    assert continuous(camera.receiver.packets)


def test_more_is_asked_for_until_it_comes() -> None:
    camera = _Camera()
    camera.want(LOW)
    camera.send(key=True)
    asked = camera.track.owner.asked
    asked.clear()
    camera.downstream._asked_at = -1e9
    camera.want(MEDIUM)
    assert len(asked) == 1
    camera.downstream._asked_at = -1e9
    camera.downstream.tick(0.0)
    assert len(asked) == 2
    camera.send(key=True)
    camera.downstream._asked_at = -1e9
    camera.downstream.tick(0.0)
    assert len(asked) == 2


def test_a_picture_under_way_is_finished_as_it_began() -> None:
    camera = _Camera()
    camera.send(key=True)
    picture = camera.make(key=False)
    begun = camera.give(picture[:3])
    camera.want(LOW)
    assert layers([*begun, *camera.give(picture[3:])]) == [0, 0, 1, 1, 2, 2]
    assert layers(camera.send()) == [0, 0]


def test_the_marker_ends_what_is_left_of_a_picture() -> None:
    camera = _Camera()
    for quality, markers in ((HIGH, [0] * 5 + [1]), (MEDIUM, [0] * 3 + [1]), (LOW, [0, 1])):
        camera.want(quality)
        got = camera.send(key=True)
        assert [data[1] >> 7 for data in got] == markers
        assert {rtp.ssrc_of(data) for data in got} == {4242}


def test_after_a_pause_it_starts_with_a_key_picture_and_goes_on_counting() -> None:
    camera = _Camera()
    camera.send(key=True)
    camera.downstream.settings_changed(disabled=True, quality=HIGH)
    assert camera.send(key=True) == []
    camera.want(HIGH)
    assert camera.send() == []
    assert layers(camera.send(key=True)) == [0, 0, 1, 1, 2, 2]
    assert continuous(camera.receiver.packets)


def test_padding_and_damaged_packets_take_no_number() -> None:
    camera = _Camera()
    camera.send(key=True)
    camera.sequence += 2
    padding = bytearray(packet(bytes(254) + b"\xff", sequence=camera.sequence - 1, timestamp=3000, ssrc=7))
    padding[0] |= 0x20
    assert rtp.is_padding(bytes(padding))
    assert camera.give([bytes(padding), packet(b"", sequence=camera.sequence, timestamp=3000, ssrc=7)]) == []
    camera.send()
    assert continuous(camera.receiver.packets)


def test_a_lost_packet_leaves_a_gap_and_fills_it_when_it_comes() -> None:
    camera = _Camera(sequence=100)
    camera.want(LOW)
    camera.send(key=True)
    late = camera.make(key=False)
    camera.give([late[0], *late[2:]])
    camera.send()
    gap = rtp.sequence_of(camera.receiver.packets[2]) + 1
    camera.track.owner.asked.clear()
    camera.downstream.retransmit([gap, gap - 1])
    assert [data[-4:-2] for data in camera.track.owner.asked] == [struct.pack("!H", rtp.sequence_of(late[1]))]
    assert camera.receiver.packets[-1] == camera.receiver.packets[2]
    (filled,) = camera.give([late[1]])
    assert rtp.sequence_of(filled) == gap
    assert filled[1] & 0x80
    assert camera.give([late[1], late[2]]) == []  # repetitions


def test_a_lost_packet_of_a_layer_left_out_is_replaced_by_padding() -> None:
    """It can't be told which layer a missing packet is of: the receiver must not ask for it for ever."""
    camera = _Camera(sequence=100)
    camera.want(LOW)
    camera.send(key=True)
    late = camera.make(key=False)
    camera.give([*late[:3], *late[4:]])
    camera.send()
    (filled,) = camera.give([late[3]])
    assert rtp.is_rtp(filled)
    assert rtp.is_padding(filled)
    assert filled[0] & 0x20
    assert filled[12:] == b"\x01"
    assert not filled[1] & 0x80
    assert rtp.sequence_of(filled) == rtp.sequence_of(camera.receiver.packets[3]) + 1


def test_a_straggling_key_picture_raises_nothing() -> None:
    """What came after it was decided without it, so the higher layers would lack their beginning."""
    camera = _Camera()
    camera.want(LOW)
    camera.send(key=True)
    late = camera.make(key=True)
    camera.send()
    camera.want(HIGH)
    assert layers(camera.give(late[:1])) == [0]
    assert layers(camera.send()) == [0, 0]


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.sets(st.integers(0, 5), max_size=2)), max_size=30),
    st.integers(0, 65_535),
)
def test_whatever_is_wished_for_and_lost(steps: list[tuple[bool, int, set[int]]], start: int) -> None:
    """Nothing above the wish, no layer gained but at a key picture, no number twice; gaps only for what was lost."""
    camera = _Camera(start)
    highest, lost = -1, 0
    for key, wish, missing in steps:
        camera.want(wish)
        picture = camera.make(key=key)
        got = camera.give([data for at, data in enumerate(picture) if at not in missing])
        lost += len(missing)
        found = max(layers(got), default=-1)
        assert found <= min(wish, 2)
        assert found <= highest or (key and 0 not in missing)
        if camera.downstream.current >= 0:
            highest = min(camera.downstream.current, 2)
    sequences = [rtp.sequence_of(data) for data in camera.receiver.packets]
    assert len(set(sequences)) == len(sequences)
    gaps = sum(((later - earlier) & 0xFFFF) - 1 for earlier, later in itertools.pairwise(sequences))
    assert gaps <= lost


@given(st.lists(st.tuples(st.integers(0, 65_535), st.booleans()), max_size=60), st.integers(0, 7))
def test_any_numbers_in_any_order(arrivals: list[tuple[int, bool]], spatial: int) -> None:
    receiver, track = Receiver(), _Track()
    downstream = SvcDownstream(receiver, track)  # type: ignore[arg-type]
    downstream.begin()
    for sequence, key in arrivals:
        data = packet(b"data", sequence=sequence, timestamp=sequence)
        downstream.relay(track.streams[""], data, 1.0, Part(0 if key else spatial, True, key))
        downstream.relay(track.streams[""], data, 1.0, None)
    downstream.retransmit(list(range(0, 65_536, 999)))
    assert all(rtp.is_rtp(data) for data in receiver.packets)


def test_the_descriptor_goes_to_who_knows_it() -> None:
    """Under the receiver's own id. Chromium decodes no AV1 with several layers without it."""
    camera = _Camera()
    part = Part(0, True, True, b"descriptor")
    for sequence, extension, told in ((5, 0, None), (6, 9, b"descriptor")):
        camera.downstream.descriptor_extension = extension
        data = packet(b"data", sequence=sequence, timestamp=sequence)
        camera.downstream.relay(camera.track.streams[""], data, 1.0, part)
        sent = camera.receiver.packets[-1]
        assert rtp.header_extension(sent, 9) == told
        assert sent[rtp.payload_offset(sent) :] == b"data"


def test_a_long_silence_is_no_gap() -> None:
    numbers = Renumbering()
    assert numbers.place(5, keep=True) is None
    numbers.begin(10)
    assert [numbers.place(sequence, keep=True) for sequence in (10, 12, 5000, 11)] == [10, 12, 13, 11]
    assert numbers.came_as(99) is None


def test_what_was_sent_is_kept_for_a_while() -> None:
    sent = SentPackets()
    for number in range(5000):
        sent.add(number, b"%d" % number)
    assert sent.get(4999) == b"4999"
    assert sent.get(4500) == b"4500"
    assert sent.get(100) is None
    sent.clear()
    assert sent.get(4999) is None
