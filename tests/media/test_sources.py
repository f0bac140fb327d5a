"""Sources of sound: every argument checked where it is given, every opening independent, every rate true to pitch."""

from __future__ import annotations

import io
import itertools
import struct
import threading
import wave
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.media.helpers import LONG, pitch, roughness
from utd_fsm.errors import UTDInputError, UTDStateError
from utd_fsm.media import AudioFeed, AudioFrames, AudioSource, Silence, Tone, WavFile
from utd_fsm.media.sources import require_audio_source

if TYPE_CHECKING:
    from utd_fsm.room import Samples


def sine(rate: int, seconds: float = 1.0, hz: float = 440.0, channels: int = 1) -> Samples:
    wave_ = np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate) * 0.5 * 32767
    return np.repeat(np.rint(wave_).astype(np.int16)[:, None], channels, axis=1)


def read_all(source: AudioSource, chunk: int = 960) -> Samples:
    reader = source.open()
    parts = []
    while True:
        part = reader.read(chunk)
        assert part.dtype == np.int16
        assert part.shape == (len(part), 1)
        parts.append(part)
        if len(part) < chunk:
            assert len(reader.read(chunk)) == 0
            reader.close()
            return np.concatenate(parts)


def encode(samples: Samples, width: int, *, extensible: bool = False, floating: bool = False) -> tuple[bytes, bytes]:
    """(format chunk, data) of int16 samples in another width. The rate is filled in by `write`."""
    channels = samples.shape[1]
    flat = samples.reshape(-1)
    if floating:
        data = (flat / 32768).astype("<f4" if width == 4 else "<f8").tobytes()
    elif width == 1:
        data = ((flat.astype(np.int32) >> 8) + 128).astype(np.uint8).tobytes()
    else:
        wide = (flat.astype(np.int64) << (8 * (width - 2))).astype("<i8").view(np.uint8).reshape(-1, 8)
        data = wide[:, :width].tobytes()
    tag = 3 if floating else 1
    head = struct.pack("<HH", 0xFFFE if extensible else tag, channels) + b"RATE"
    head += struct.pack("<HH", channels * width, 8 * width)
    if extensible:
        head += struct.pack("<HHIH", 22, 8 * width, 0, tag) + b"\0" * 14
    return head, data


def write(path: Path, head: bytes, data: bytes, rate: int, *, size: int | None = None, before: bytes = b"") -> Path:
    align = struct.unpack("<H", head[8:10])[0]
    head = head.replace(b"RATE", struct.pack("<II", rate, rate * align))
    body = b"WAVE" + before + b"fmt " + struct.pack("<I", len(head)) + head
    body += b"data" + struct.pack("<I", len(data) if size is None else size) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", len(body)) + body)
    return path


# ------------------------------------------------------------------------------------------------------------- recipes


def test_a_tone_is_on_pitch_as_loud_as_asked_and_seamless() -> None:
    reader = Tone(440, amplitude=0.5).open()
    sound = np.concatenate([reader.read(960) for _ in range(100)])
    assert pitch(sound) == pytest.approx(440, abs=0.05)
    assert sound.max() == pytest.approx(0.5 * 32767, abs=2)
    assert roughness(sound, 440) < 1.01


def test_one_recipe_in_two_sessions_is_two_readings() -> None:
    tone = Tone(440)
    first, second = tone.open(), tone.open()
    ahead = first.read(700)
    assert np.array_equal(second.read(700), ahead)
    assert not np.array_equal(first.read(700), ahead)


def test_a_tone_stays_exact_after_hours() -> None:
    reader: Any = Tone(440.5).open()
    reader._at = 48_000 * 3600 * 10
    assert pitch(np.concatenate([reader.read(960) for _ in range(50)])) == pytest.approx(440.5, abs=0.05)


def test_lengths() -> None:
    assert len(read_all(Tone(440, seconds=0.5))) == 24_000
    silence = read_all(Silence(seconds=0.25))
    assert len(silence) == 12_000
    assert not silence.any()
    assert len(Silence().open().read(96_000)) == 96_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: Tone(0),
        lambda: Tone(24_001),
        lambda: Tone(float("nan")),
        lambda: Tone("440"),  # type: ignore[arg-type]
        lambda: Tone(True),
        lambda: Tone(440, amplitude=1.1),
        lambda: Tone(440, amplitude=-0.1),
        lambda: Tone(440, seconds=0),
        lambda: Silence(seconds=-1),
        lambda: AudioFrames([], 7999, 1),
        lambda: AudioFrames([], 192_001, 1),
        lambda: AudioFrames([], 48_000.5, 1),  # type: ignore[arg-type]
        lambda: AudioFrames([], 48_000, 0),
        lambda: AudioFrames([], 48_000, 3),
        lambda: AudioFrames(5, 48_000, 1),  # type: ignore[arg-type]
        lambda: AudioFrames("abc", 48_000, 1),
        lambda: AudioFeed(1, 1),
        lambda: AudioFeed(48_000, 9),
        lambda: AudioFeed(48_000, 1, seconds=0),
        lambda: WavFile(5),  # type: ignore[arg-type]
        lambda: WavFile("a\0b"),
        lambda: WavFile("x.wav", loop=1),  # type: ignore[arg-type]
        lambda: require_audio_source("Tone"),
    ],
)
def test_bad_arguments_are_refused_where_they_are_given(make: Callable[[], object]) -> None:
    with pytest.raises(UTDInputError, match="allowed"):
        make()


def test_sources_show_what_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", *encode(sine(48_000, 0.1), 2), 48_000)
    assert repr(Tone(440)) == "Tone(440, amplitude=0.3)"
    assert repr(Silence()) == "Silence()"
    assert "a.wav" in repr(WavFile(path, loop=True))
    assert repr(AudioFrames([], 8000, 2)) == "AudioFrames(<list>, 8000, 2)"
    assert WavFile(str(path)).seconds == pytest.approx(0.1)


# --------------------------------------------------------------------------------------------------------------- files


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_a_file_of_any_rate_stays_on_pitch_without_a_click(tmp_path: Path, rate: int) -> None:
    path = write(tmp_path / "a.wav", *encode(sine(rate, 2.0), 2), rate)
    sound = read_all(WavFile(path))
    assert len(sound) == pytest.approx(96_000, abs=2)
    assert pitch(sound[2000:-2000]) == pytest.approx(440, abs=0.1)
    assert roughness(sound[2000:-2000], 440) < 1.05


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("extensible", [False, True])
@pytest.mark.parametrize(("width", "floating"), [(1, False), (2, False), (3, False), (4, False), (4, True), (8, True)])
def test_a_file_of_any_width_is_the_same_sound(
    tmp_path: Path, width: int, floating: bool, extensible: bool, channels: int
) -> None:
    truth = sine(48_000, 0.2, channels=channels)
    path = write(tmp_path / "a.wav", *encode(truth, width, extensible=extensible, floating=floating), 48_000)
    sound = read_all(WavFile(path))
    assert len(sound) == len(truth)
    allowed = 256 if width == 1 else 1
    assert np.abs(sound.astype(int) - truth[:, :1].astype(int)).max() <= allowed


def test_stereo_becomes_the_mean_of_both() -> None:
    stereo = np.stack([np.full(960, 32_767), np.full(960, -32_767)], axis=1).astype(np.int16)
    assert not read_all(AudioFrames([stereo], 48_000, 2)).any()
    loud = np.full((960, 2), 32_767, dtype=np.int16)
    assert (read_all(AudioFrames([loud], 48_000, 2)) == 32_767).all()


def test_what_the_standard_library_writes_is_read(tmp_path: Path) -> None:
    truth = sine(16_000, 0.5)
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16_000)
        file.writeframes(truth.tobytes())
    assert pitch(read_all(WavFile(tmp_path / "a.wav"))) == pytest.approx(440, abs=0.5)


def test_a_looped_file_goes_on_without_a_seam(tmp_path: Path) -> None:
    # 441 periods fit exactly, so a seam would show as a click even after resampling.
    path = write(tmp_path / "a.wav", *encode(sine(44_100, 0.1, hz=440), 2), 44_100)
    reader = WavFile(path, loop=True).open()
    sound = np.concatenate([reader.read(960) for _ in range(100)])
    reader.close()
    assert len(sound) == 96_000
    assert pitch(sound) == pytest.approx(440, abs=0.1)
    assert roughness(sound[2000:], 440) < 1.05


def test_odd_chunks_lengths_never_filled_in_and_cut_off_files_are_read(tmp_path: Path) -> None:
    truth = sine(48_000, 0.1)
    head, data = encode(truth, 2)
    odd = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    assert np.array_equal(read_all(WavFile(write(tmp_path / "odd.wav", head, data, 48_000, before=odd))), truth)
    for size in (0, 0xFFFFFFFF, len(data) * 2):
        path = write(tmp_path / f"{size}.wav", head, data, 48_000, size=size)
        assert np.array_equal(read_all(WavFile(path)), truth)
    path = write(tmp_path / "cut.wav", head, data[:1001], 48_000, size=len(data))
    assert np.array_equal(read_all(WavFile(path)), truth[:500])


def test_an_empty_file_is_finished_at_once_even_when_looped(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", *encode(sine(48_000, 0.0), 2), 48_000)
    assert len(read_all(WavFile(path))) == 0
    assert len(read_all(WavFile(path, loop=True))) == 0


def _wav(tag: int = 1, channels: int = 1, rate: int = 48_000, width: int = 2, data: bytes = b"\0" * 64) -> bytes:
    head = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * width, channels * width, width * 8)
    return b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", 16) + head + b"data" + struct.pack("<I", len(data)) + data


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a WAV file"),
        (b"ID3" + b"\0" * 100, "not a WAV file"),
        (b"RIFF\0\0\0\0AVI " + b"\0" * 64, "not a WAV file"),
        (b"RIFF\0\0\0\0WAVE", "cut off"),
        (b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\1\0", "cut off"),
        (_wav()[:36], "no sound"),
        (b"RIFF\0\0\0\0WAVEdata\0\0\0\0", "before its format"),
        (_wav(tag=2), "compressed .Microsoft ADPCM"),
        (_wav(tag=7), "compressed"),
        (_wav(tag=1234), "compressed .format 1234"),
        (_wav(channels=6), "6 channels"),
        (_wav(channels=0), "0 channels"),
        (_wav(rate=4000), "4000 Hz"),
        (_wav(width=7), "56 bit"),
    ],
)
def test_what_is_no_usable_wav_file_is_refused_with_its_path(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "strange.wav"
    path.write_bytes(content)
    with pytest.raises(UTDInputError, match=says) as caught:
        WavFile(path)
    assert str(path) in str(caught.value)
    assert "allowed" in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused_with_their_path(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.wav", tmp_path):
        with pytest.raises(UTDInputError, match="allowed") as caught:
            WavFile(path)
        assert str(path) in str(caught.value)


def test_random_bytes_after_a_header_never_do_worse_than_an_input_error(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    good = bytearray(_wav())
    for round_ in range(300):
        content = bytearray(good)
        for position in random.integers(8, len(content), 4):
            content[position] = random.integers(0, 256)
        path = tmp_path / f"{round_}.wav"
        path.write_bytes(content[: random.integers(8, len(content) + 1)])
        try:
            source = WavFile(path)
        except UTDInputError:
            continue
        read_all(source)


def test_a_file_that_vanishes_or_shrinks_fails_at_the_reading_or_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", *encode(sine(48_000, 0.5), 2), 48_000)
    source = WavFile(path)
    path.unlink()
    reader = source.open()
    with pytest.raises(FileNotFoundError):
        reader.read(960)
    reader.close()


# ---------------------------------------------------------------------------------------------------- the caller's own


def test_pieces_of_any_size_and_floats_are_joined_without_a_seam() -> None:
    truth = sine(16_000, 1.0)[:, 0]
    cuts = [0, 1, 8, 400, 401, 4000, 9999, 16_000]
    pieces: list[Any] = [truth[a:b] for a, b in itertools.pairwise(cuts)]
    pieces[3] = (pieces[3] / 32767).astype(np.float32)
    pieces.insert(2, np.empty(0, dtype=np.int16))
    sound = read_all(AudioFrames(pieces, 16_000, 1))
    whole = read_all(AudioFrames([truth], 16_000, 1))
    assert len(sound) == len(whole)
    assert np.abs(sound.astype(int) - whole.astype(int)).max() <= 2  # the resampler dithers
    assert pitch(sound) == pytest.approx(440, abs=0.5)


def test_full_scale_floats_are_full_scale() -> None:
    told = np.array([1.0, -1.0, 0.0, 0.5], dtype=np.float64)
    assert read_all(AudioFrames([told], 48_000, 1))[:, 0].tolist() == [32_767, -32_767, 0, 16_384]


def test_a_list_is_read_afresh_and_a_function_makes_a_new_one_each_time() -> None:
    pieces = [sine(48_000, 0.1)]
    for source in (AudioFrames(pieces, 48_000, 1), AudioFrames(lambda: iter(pieces), 48_000, 1)):
        for _ in range(2):
            assert np.array_equal(read_all(source), pieces[0])


def test_a_generator_can_be_sent_once_and_a_second_opening_says_so() -> None:
    source = AudioFrames((sine(48_000, 0.1) for _ in range(2)), 48_000, 1)
    reader = source.open()
    with pytest.raises(UTDStateError, match="generator, which can be read only once"):
        source.open()
    reader.close()  # nothing was read of it, so it is as good as new
    assert len(read_all(source)) == 9600
    with pytest.raises(UTDStateError, match="make it from a list"):
        source.open()


def test_the_iterable_is_asked_no_further_than_needed_and_not_at_the_opening() -> None:
    asked = []

    def pieces() -> Iterator[Samples]:
        for number in range(100):
            asked.append(number)
            yield sine(48_000, 0.02)

    reader = AudioFrames(pieces, 48_000, 1).open()
    assert asked == []
    reader.read(960)
    assert asked == [0]
    reader.read(960)
    assert asked == [0, 1]


@pytest.mark.parametrize(
    ("piece", "says"),
    [
        ([1, 2, 3], "got list"),
        (np.zeros(10, dtype=np.int32), "dtype int32"),
        (np.zeros(10, dtype=np.uint8), "dtype uint8"),
        (np.zeros((10, 2), dtype=np.int16), r"shape \(10, 2\)"),
        (np.zeros((10, 1, 1), dtype=np.int16), "shape"),
        (np.array([0.0, 1.01]), "outside -1 to 1"),
        (np.array([0.0, np.nan]), "outside -1 to 1"),
        (np.array([0.0, np.inf]), "outside -1 to 1"),
    ],
)
def test_a_piece_that_is_no_sound_is_refused_by_name(piece: Any, says: str) -> None:
    reader = AudioFrames([sine(48_000, 0.02), piece], 48_000, 1).open()
    reader.read(960)
    with pytest.raises(UTDInputError, match=f"piece 2 of an AudioFrames: .*{says}"):
        reader.read(960)
    with pytest.raises(UTDInputError, match=f"samples: .*{says}"):
        AudioFeed(48_000, 1).push(piece)


def test_a_one_dimensional_piece_is_refused_where_there_are_two_channels() -> None:
    with pytest.raises(UTDInputError, match=r"shape \(n, 2\)"):
        AudioFeed(48_000, 2).push(np.zeros(10, dtype=np.int16))


# --------------------------------------------------------------------------------------------------------------- feeds


def test_a_feed_is_heard_as_it_was_pushed_by_each_reader() -> None:
    feed = AudioFeed(48_000, 1)
    first, second = feed.open(), feed.open()
    truth = sine(48_000, 0.5)
    for begin in range(0, len(truth), 1000):
        assert feed.push(truth[begin : begin + 1000]) == 0
    feed.close()
    for reader in (first, second):
        assert np.array_equal(reader.read(48_000), truth)
        reader.close()
    assert feed.dropped == 0


def test_what_is_pushed_before_anybody_reads_waits_for_the_first() -> None:
    feed = AudioFeed(48_000, 1)
    feed.push(sine(48_000, 0.1))
    first = feed.open()
    second = feed.open()
    feed.push(np.full(480, 7, dtype=np.int16))
    feed.close()
    assert len(first.read(48_000)) == 4800 + 480
    assert second.read(48_000)[:, 0].tolist() == [7] * 480
    assert len(feed.open().read(960)) == 0


def test_a_full_feed_drops_the_oldest_and_says_so() -> None:
    feed = AudioFeed(48_000, 1, seconds=0.1)
    reader = feed.open()
    assert feed.push(np.arange(4000, dtype=np.int16)) == 0
    assert feed.push(np.arange(4000, 8000, dtype=np.int16)) == 3200
    assert feed.push(np.arange(8000, 20_000, dtype=np.int16)) == 4800 + 7200
    assert feed.dropped == 3200 + 12_000
    feed.close()
    assert reader.read(48_000)[:, 0].tolist() == list(range(15_200, 20_000))
    assert feed.push(np.zeros(5, dtype=np.int16)) == 5
    assert feed.closed


def test_the_caller_may_reuse_its_array() -> None:
    feed = AudioFeed(48_000, 1)
    reader = feed.open()
    array = np.full((480, 1), 3, dtype=np.int16)
    feed.push(array)
    array[:] = 0
    feed.close()
    assert (reader.read(480) == 3).all()


def test_pushing_never_waits_and_reading_does_until_something_comes() -> None:
    feed = AudioFeed(48_000, 1)
    reader = feed.open()
    with ThreadPoolExecutor(5) as pool:
        reading = pool.submit(reader.read, 1920)
        pushes = [pool.submit(feed.push, np.full(480, value, dtype=np.int16)) for value in range(4)]
        assert [push.result(LONG) for push in pushes] == [0] * 4
        assert sorted(set(reading.result(LONG)[:, 0].tolist())) == [0, 1, 2, 3]
        waiting = pool.submit(reader.read, 960)
        reader.close()
        assert len(waiting.result(LONG)) == 0


def test_a_forgotten_reader_costs_a_feed_nothing() -> None:
    feed = AudioFeed(48_000, 1, seconds=0.02)
    feed.open().close()
    assert feed.push(np.zeros(48_000, dtype=np.int16)) == 0


def test_a_feed_of_another_rate_is_converted() -> None:
    feed = AudioFeed(16_000, 2, seconds=5)
    reader = feed.open()
    feed.push(sine(16_000, 1.0, channels=2))
    feed.close()
    assert pitch(reader.read(96_000)) == pytest.approx(440, abs=0.5)


def test_opening_a_file_reads_nothing_of_it_and_needs_no_thread(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", *encode(sine(44_100, 0.1), 2), 44_100)
    before = threading.active_count()
    reader = WavFile(path).open()
    assert threading.active_count() == before
    reader.close()
    assert len(reader.read(960)) == 0
    assert io.BytesIO(path.read_bytes()).read(4) == b"RIFF"
