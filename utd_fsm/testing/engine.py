"""`local_engine`: a real engine and a real media server for the length of a ``with``, each its own process.

They are siblings: killing the engine leaves the media server and its rooms alone, and the other way round. Both die
with the test's process, however that ends.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from utd_fsm import wire
from utd_fsm.local.engine.settings import EngineSettings
from utd_fsm.local.ports import free_port
from utd_fsm.local.processes import EngineProcess, ExternalMedia, MediaProcess

if TYPE_CHECKING:
    from utd_fsm.client import UTDStreamClient
    from utd_fsm.testing.peer import Peer


class LocalEngine:
    """One engine with its media server. Made by `local_engine`; any thread.

    ``app_id``, ``app_key`` and ``base_url`` are what `UTDStreamClient` is given; ``livekit_url``, ``livekit_key`` and
    ``livekit_secret`` what LiveKit's own tools are.
    """

    media: MediaProcess | ExternalMedia
    """The media server: the same ``stop``, ``start`` and ``restart``."""

    def __init__(
        self,
        media: str = "embedded",
        *,
        livekit_key: str | None = None,
        livekit_secret: str | None = None,
        livekit_binary: str | Path | None = None,
        db: str | Path | None = None,
        **settings: Any,
    ) -> None:
        self._folder: Path | None = None
        if db is None:
            # a file, because a restart is to find its calls again
            self._folder = Path(tempfile.gettempdir()) / f"utd-fsm-engine-{secrets.token_hex(8)}"
            db = self._folder / "engine.db"
        port = free_port()
        if "://" in media:
            self.media = ExternalMedia(media, livekit_key, livekit_secret)
        else:
            self.media = MediaProcess(
                media,
                webhook_url=f"http://127.0.0.1:{port}{wire.PREFIX}{wire.MEDIA_WEBHOOK}",
                key=livekit_key,
                secret=livekit_secret,
                binary=livekit_binary,
            )
        # a media server that somebody else runs may serve others, too
        settings.setdefault("sole_owner", self.media.kind != "external")
        if settings.get("webhook_url") and not settings.get("webhook_secret"):
            settings["webhook_secret"] = secrets.token_hex(16)
        self.settings = EngineSettings(
            port=port,
            db=str(db),
            media_url=self.media.url,
            livekit_key=self.media.key,
            livekit_secret=self.media.secret,
            app_key=secrets.token_hex(16),
            app_secret=secrets.token_hex(16),
            **settings,
        )
        self.process = EngineProcess(self.settings)
        self.app_id = self.settings.app_id
        self.app_key = self.settings.app_key
        self.app_secret = self.settings.app_secret
        self.base_url = self.process.base_url
        self.webhook_secret = self.settings.webhook_secret
        self.livekit_url = self.media.url
        self.livekit_key = self.media.key
        self.livekit_secret = self.media.secret

    def __repr__(self) -> str:
        return f"<LocalEngine {self.base_url} media={self.media.kind}{'' if self.process.running else ' stopped'}>"

    def start(self) -> None:
        """Start the engine (not the media server); nothing, if it runs.

        Raises: UTDConnectionError: it did not become ready.
        """
        self.process.start()

    def stop(self, *, hard: bool = False) -> None:
        """Stop the engine; ``hard`` is kill -9. The media server and its rooms stay."""
        self.process.stop(hard=hard)

    def restart(self, *, hard: bool = False) -> None:
        """Stop and start the engine: same port, keys and data.

        Raises: UTDConnectionError: it did not come back.
        """
        self.process.restart(hard=hard)

    def client(self) -> UTDStreamClient:
        """A new client for this engine; nobody is signed in yet. Close it."""
        from utd_fsm.client import UTDStreamClient

        return UTDStreamClient(self.app_id, self.app_key, base_url=self.base_url)

    def peer(self, identity: str, **options: Any) -> Peer:
        """Somebody to call: a second party that answers by itself, inside a ``with``.

        Args:
            identity: who it is.
            options: as `Peer`: ``on_call``, ``microphone``, ``camera``, ``hang_up_after``, ``name``, ``device_id``.

        Raises:
            UTDInputError: an option is wrong.
        """
        from utd_fsm.testing.peer import Peer

        return Peer(self.client(), identity, **options)

    def close(self) -> None:
        """Stop both and remove what they kept. Idempotent."""
        self.process.stop()
        if isinstance(self.media, MediaProcess):
            self.media.stop()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            if self._folder is not None:
                self._folder.mkdir(mode=0o700, exist_ok=True)
            self.media.start()
            self.process.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def local_engine(
    media: str = "embedded",
    *,
    livekit_key: str | None = None,
    livekit_secret: str | None = None,
    livekit_binary: str | Path | None = None,
    ring_timeout: float = 30.0,
    max_call: float = 3600.0,
    rate_limit: int = 0,
    webhook_url: str | None = None,
    webhook_secret: str | None = None,
    db: str | Path | None = None,
    **settings: Any,
) -> LocalEngine:
    """A real engine and a real media server, for the length of a ``with``.

    Args:
        media: ``embedded``, ``livekit-server``, or the ws:// URL of one that runs already.
        livekit_key: the media server's key; None makes one (a URL needs it).
        livekit_secret: its secret; None makes one (a URL needs it).
        livekit_binary: the livekit-server to run; None looks for one (``UTD_LIVEKIT_SERVER``, PATH, the installed one).
        ring_timeout: seconds until nobody answered.
        max_call: seconds a call may last.
        rate_limit: requests a minute and identity; 0 is no limit.
        webhook_url: where the engine's webhooks go.
        webhook_secret: what signs them; None makes one, see ``engine.webhook_secret``.
        db: the engine's SQLite file; None keeps one for the length of the ``with``.
        settings: any other field of `EngineSettings`, such as ``party_grace``.

    Returns:
        The engine; it runs inside the ``with``.

    Raises:
        UTDInputError: an argument is wrong, or there is no livekit-server.
        UTDConnectionError: (on entering) a process did not become ready.
    """
    return LocalEngine(
        media,
        livekit_key=livekit_key,
        livekit_secret=livekit_secret,
        livekit_binary=livekit_binary,
        db=db,
        ring_timeout=ring_timeout,
        max_call=max_call,
        rate_limit=rate_limit,
        webhook_url=webhook_url,
        webhook_secret=webhook_secret,
        **settings,
    )
