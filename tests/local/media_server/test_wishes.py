"""Which layer a subscriber's settings ask for."""

from __future__ import annotations

import pytest
from livekit.protocol import models, rtc

from utd_fsm.local.media_server.signal_requests import wished_quality

SIDES = ((320, 180), (640, 360), (1280, 720))


def info(*sides: tuple[int, int], turned: bool = False) -> models.TrackInfo:
    sides = tuple((height, width) for width, height in sides) if turned else sides
    layers = [models.VideoLayer(width=width, height=height) for width, height in sides]
    width, height = sides[-1] if sides else (640, 360)
    return models.TrackInfo(width=width, height=height, layers=layers)


@pytest.mark.parametrize(
    ("size", "rank"),
    [
        ((1, 1), 0),
        ((320, 180), 0),
        ((350, 199), 0),
        ((360, 201), 1),
        ((640, 360), 1),
        ((1280, 720), 2),
        ((4000, 3000), 2),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_a_size_asks_for_the_smallest_layer_that_will_do(size: tuple[int, int], rank: int, turned: bool) -> None:
    width, height = size[::-1] if turned else size
    request = rtc.UpdateTrackSettings(width=width, height=height, quality=models.HIGH)
    assert wished_quality(request, info(*SIDES, turned=turned)) == rank


def test_without_a_size_the_quality_counts_and_without_layers_anything_will_do() -> None:
    for quality in (models.LOW, models.MEDIUM, models.HIGH):
        assert wished_quality(rtc.UpdateTrackSettings(quality=quality), info(*SIDES)) == quality
    assert wished_quality(rtc.UpdateTrackSettings(width=1280, height=720), info()) == 0
    assert wished_quality(rtc.UpdateTrackSettings(width=1280, height=720), info(*SIDES[:2])) == 1
