"""The three sources of one session, and what feeds them: a recipe each, opened afresh for each stay in a room.

Loop thread only. The machines are `SourceDriver`'s, the sound and pictures `utd_fsm.media`'s; this module holds the
two together and knows neither calls nor seats.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from utd_fsm.errors import UTDInputError, UTDStateError, UTDStreamException
from utd_fsm.models import UTDTrackSource
from utd_fsm.sessions.publishing import SourceDriver
from utd_fsm.sessions.timing import Timing

if TYPE_CHECKING:
    from utd_fsm.machines.base import Step
    from utd_fsm.media import AudioSource, VideoSource
    from utd_fsm.media.outgoing import Microphone
    from utd_fsm.portal import Portal
    from utd_fsm.room import Permission, Publication, Room

_MICROPHONE, _CAMERA, _SCREEN = UTDTrackSource.MICROPHONE, UTDTrackSource.CAMERA, UTDTrackSource.SCREEN
ALL: Final = (_MICROPHONE, _CAMERA, _SCREEN)


def check_recipe(source: UTDTrackSource, recipe: object) -> None:
    """Refuse what cannot feed this source; None is left as it is.

    Raises:
        UTDInputError: it is no recipe of `utd_fsm.media` of this kind.
    """
    if recipe is None:
        return
    from utd_fsm.media.sources import require_audio_source
    from utd_fsm.media.video_sources import require_video_source

    if source is _MICROPHONE:
        require_audio_source(recipe)
    else:
        require_video_source(recipe)


class Sources:
    """Microphone, camera and screen of one session.

    Args:
        portal: for the threads on which recipes are pulled.
        timing: seconds.
        microphone: what the microphone sends; None is silence.
        camera: what the camera sends; None is the test pattern.
        entitled: whether a source's grant may be expected although it is not there.
        refusal: a further reason why a source may not be switched on.
        on_change: told each step of each machine.
    """

    def __init__(
        self,
        portal: Portal,
        timing: Timing,
        *,
        microphone: AudioSource | None,
        camera: VideoSource | None,
        entitled: Callable[[UTDTrackSource], bool],
        refusal: Callable[[UTDTrackSource], UTDStreamException | None],
        on_change: Callable[[UTDTrackSource, Step], None],
    ) -> None:
        check_recipe(_MICROPHONE, microphone)
        check_recipe(_CAMERA, camera)
        self._portal = portal
        self._recipes: dict[UTDTrackSource, Any] = {_MICROPHONE: microphone, _CAMERA: camera}
        self._media: dict[UTDTrackSource, Any] = {}  # Microphone or Camera, which have recipes of their own kinds
        self._started: set[UTDTrackSource] = set()
        self._underruns = 0
        self.starts_at_once = True
        """Whether what is published is pulled at once; otherwise from `start` on."""
        self._drivers = {
            source: SourceDriver(
                source,
                publish=partial(self._publish, source),
                entitled=partial(entitled, source),
                refusal=partial(refusal, source),
                on_change=partial(on_change, source),
                timing=timing,
            )
            for source in ALL
        }

    def __getitem__(self, source: UTDTrackSource) -> SourceDriver:
        return self._drivers[source]

    # -- what is wanted

    async def enable(self, source: UTDTrackSource, recipe: Any = None) -> None:
        """Be on, sending ``recipe`` (None: what it sent before). Raises as `SourceDriver.enable`.

        What is refused at once opens no source, and leaves the one before.
        """
        self._drivers[source].refuse_now()
        if recipe is not None:
            self._recipes[source] = recipe
            if source in self._media:
                self._media[source].set_source(recipe)
        self._feeding(source)
        await self._drivers[source].enable()

    async def disable(self, source: UTDTrackSource) -> None:
        """A microphone or camera is muted, its track stays; a screen is taken down."""
        if source is _SCREEN:
            await self._drivers[source].stop()
        else:
            await self._drivers[source].mute()

    def stop_all(self, error: UTDStreamException | None = None) -> None:
        """Take every track down, in the background; nothing more is sent from now on."""
        for driver in self._drivers.values():
            driver.stop_now(error)

    def start(self, source: UTDTrackSource) -> None:
        """From now on this source is pulled; before that it sends silence or black."""
        self._started.add(source)
        if source in self._media:
            self._media[source].start()

    def microphone(self) -> Microphone:
        """What plays.

        Raises:
            UTDStateError: the microphone is off or muted, so that nobody would hear it.
        """
        media = self._media.get(_MICROPHONE)
        if media is None or not self._drivers[_MICROPHONE].wanted:
            raise UTDStateError(
                "the microphone is off: switch it on with set_microphone(True) before playing",
                state=self._drivers[_MICROPHONE].state,
            )
        return cast("Microphone", media)

    @property
    def underruns(self) -> int:
        """Pieces of 20 ms of silence that the microphone sent because its source had nothing ready. Any thread."""
        media = self._media.get(_MICROPHONE)
        return self._underruns + (media.underruns if media is not None else 0)

    # -- what is heard of the room

    def room_joined(self, room: Room) -> None:
        """In the room; its permission is the first reading there."""
        for source, driver in self._drivers.items():
            driver.room_joined(room, room.permission.allows(source))

    def reading(self, permission: Permission) -> None:
        """A later reading."""
        for source, driver in self._drivers.items():
            driver.reading(permission.allows(source))

    def link_lost(self) -> None:
        """LiveKit mends the link."""
        for driver in self._drivers.values():
            driver.link_lost()

    def room_lost(self) -> None:
        """The Room is dead; the session tries to come back."""
        for driver in self._drivers.values():
            driver.room_lost()

    def room_left(self, error: UTDStreamException | None = None) -> None:
        """The session is out; what feeds the sources is closed in the background."""
        for driver in self._drivers.values():
            driver.room_left(error)
            driver.media = None
        self._underruns = self.underruns
        media, self._media = self._media, {}
        self._started.clear()
        for source, one in media.items():
            closing = one.aclose(error) if source is _MICROPHONE else one.aclose()
            self._portal.spawn(closing, name="utd-fsm-media-close")

    # -- what feeds them

    def _feeding(self, source: UTDTrackSource) -> Any:
        """The `Microphone` or `Camera` that feeds it in this stay, made at first use."""
        media = self._media.get(source)
        if media is None:
            from utd_fsm.media.camera import Camera, default_view
            from utd_fsm.media.outgoing import Microphone

            recipe: Any = self._recipes.get(source)
            if recipe is None and source is _SCREEN:
                raise UTDInputError(
                    "source: a screen needs one: for instance VideoFeed(…) or Image(…) of utd_fsm.media"
                )
            if recipe is None and source is _CAMERA:
                self._recipes[_CAMERA] = recipe = default_view()  # kept, so that the log says so once a session
            media = Microphone(self._portal, recipe) if source is _MICROPHONE else Camera(self._portal, recipe)
            self._media[source] = media
            if self.starts_at_once or source in self._started:
                media.start()
            self._drivers[source].media = media
        return media

    async def _publish(self, source: UTDTrackSource, room: Room) -> Publication:
        if source is _MICROPHONE:
            return await room.publish_audio(source)
        media = self._media[source]
        return await room.publish_video(source, width=media.width, height=media.height, fps=media.fps)
