"""Sound and pictures: what a session sends (sources), what it hears and sees (frames). Floor 4.

Public: the names below. Importing this package loads numpy and not ``livekit``; ``import utd_fsm`` loads neither.
"""

from __future__ import annotations

from utd_fsm.media.feeds import AudioFeed, VideoFeed
from utd_fsm.media.frames import AudioFrame, VideoFrame
from utd_fsm.media.image import Image
from utd_fsm.media.sources import AudioFrames, AudioSource, Silence, Tone, WavFile
from utd_fsm.media.video_sources import TestPattern, VideoFrames, VideoSource

__all__ = [
    "AudioFeed",
    "AudioFrame",
    "AudioFrames",
    "AudioSource",
    "Image",
    "Silence",
    "TestPattern",
    "Tone",
    "VideoFeed",
    "VideoFrame",
    "VideoFrames",
    "VideoSource",
    "WavFile",
]
