"""A still picture: from files and arrays, its size, what is refused, and that it is sent again and again."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image as Pillow

from tests.media.helpers import FakePublication, Tasks, until
from utd_fsm.errors import UTDInputError
from utd_fsm.media import Image
from utd_fsm.media import image as module
from utd_fsm.media.arrays import resized
from utd_fsm.media.camera import Camera

if TYPE_CHECKING:
    from utd_fsm.room import Pixels

RED, GREEN, BLUE, WHITE = (250, 10, 20), (10, 240, 30), (20, 30, 230), (240, 240, 240)


def quarters(width: int = 64, height: int = 48) -> Pixels:
    """Red and green above, blue and white below: shows what is turned, mirrored or of swapped colours."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    middle, centre = height // 2, width // 2
    picture[:middle, :centre], picture[:middle, centre:] = RED, GREEN
    picture[middle:, :centre], picture[middle:, centre:] = BLUE, WHITE
    return picture


def shown(image: Image) -> Pixels:
    picture = image.open().read()
    assert picture is not None
    assert picture.shape == (image.height, image.width, 3)
    assert picture.dtype == np.uint8
    return picture


def corners(picture: Pixels) -> list[tuple[int, ...]]:
    """The colours at an eighth from each corner: upper left, upper right, lower left, lower right."""
    high, wide = picture.shape[0] // 8, picture.shape[1] // 8
    return [tuple(int(part) for part in picture[y, x]) for y in (high, -high - 1) for x in (wide, -wide - 1)]


def alike(seen: list[tuple[int, ...]], *colours: tuple[int, int, int]) -> bool:
    return bool(np.abs(np.array(seen) - np.array(colours)).max() < 20)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "gif", "bmp", "tiff", "ppm"])
def test_a_file_of_every_form(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"picture.{ending}"
    Pillow.fromarray(quarters()).save(path)
    for given in (path, str(path)):
        image = Image(given)
        assert (image.width, image.height, image.fps) == (64, 48, 5)
        assert alike(corners(shown(image)), RED, GREEN, BLUE, WHITE)


def test_it_is_read_once_and_every_opening_has_the_picture_once(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Pillow.fromarray(quarters()).save(path)
    image = Image(path)
    path.unlink()
    first, second = image.open(), image.open()
    for reader in (first, second):
        picture = reader.read()
        assert picture is not None
        assert np.array_equal(picture, quarters())
        assert reader.read() is None
    assert repr(image) == f"Image({str(path)!r}, width=64, height=48, fps=5)"


def test_an_array_is_copied_and_needs_no_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    array = quarters()
    image = Image(array, fps=2)
    array[:] = 0
    assert np.array_equal(shown(image), quarters())
    assert not shown(image).flags.writeable, "many sessions send the same one"
    assert (image.fps, image.path, repr(image)) == (2, None, "Image(array, width=64, height=48, fps=2)")


def test_without_the_extra_a_file_is_refused_with_the_mend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    Pillow.fromarray(quarters()).save(path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UTDInputError, match=r"not installed.*numpy array.*pip install 'utd-fsm\[media\]'"):
        Image(path)


def test_pillow_loads_with_the_first_file_only() -> None:
    code = "import sys, utd_fsm.media; print('PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("given", "asked", "size"),
    [
        ((64, 48), {}, (64, 48)),
        ((65, 49), {}, (64, 48)),
        ((65, 49), {"width": 64, "height": 48}, (64, 48)),
        ((64, 48), {"width": 320}, (320, 240)),
        ((64, 48), {"height": 24}, (32, 24)),
        ((67, 43), {"width": 134}, (134, 86)),
        ((100, 30), {"width": 50}, (50, 16)),  # 15 made even
        ((64, 49), {"width": 64}, (64, 48)),
        ((64, 48), {"width": 320, "height": 320}, (320, 320)),
        ((3000, 1000), {}, (1920, 640)),
        ((500, 2000), {}, (480, 1920)),
        ((3, 5), {"width": 32, "height": 32}, (32, 32)),
    ],
)
def test_the_size(given: tuple[int, int], asked: dict[str, int], size: tuple[int, int]) -> None:
    image = Image(quarters(*given), **asked)
    assert (image.width, image.height) == size
    assert shown(image).any()


def test_bars_where_the_proportions_differ() -> None:
    picture = shown(Image(quarters(64, 32), width=64, height=64))
    assert not picture[:16].any()
    assert not picture[48:].any()
    assert alike(corners(picture[16:48]), RED, GREEN, BLUE, WHITE)


def test_scaling_is_smooth_and_keeps_what_is_where() -> None:
    lines = np.zeros((96, 96, 3), dtype=np.uint8)
    lines[:, ::3] = 255  # a third is white: one in three columns kept as it is would show stripes, or nothing
    small = resized(lines, 32, 32)
    assert abs(float(small.mean()) - 85) < 2
    assert int(small[:, 2:-2].max()) - int(small[:, 2:-2].min()) < 90
    for size in ((128, 96), (40, 30), (63, 47)):
        assert alike(corners(resized(quarters(), *size)), RED, GREEN, BLUE, WHITE)
    assert (resized(np.full((50, 70, 3), 200, dtype=np.uint8), 33, 91) == 200).all(), "no darker at the edges"


def test_transparent_is_black_and_a_photograph_is_turned_as_it_says(tmp_path: Path) -> None:
    clear = np.dstack([quarters(), np.full((48, 64), 255, dtype=np.uint8)])
    clear[:24, :32, 3] = 0
    Pillow.fromarray(clear).save(tmp_path / "clear.png")
    assert alike(corners(shown(Image(tmp_path / "clear.png"))), (0, 0, 0), GREEN, BLUE, WHITE)
    exif = Pillow.Exif()
    exif[0x0112] = 6  # the camera was held on its side: turn it a quarter clockwise
    Pillow.fromarray(quarters()).save(tmp_path / "turned.jpg", exif=exif, quality=95)
    turned = Image(tmp_path / "turned.jpg")
    assert (turned.width, turned.height) == (48, 64)
    assert alike(corners(shown(turned)), BLUE, RED, WHITE, GREEN)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I;16", "F"])
def test_grey_palettes_and_inks(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("picture.tiff" if mode in ("CMYK", "F") else "picture.png")
    grey = np.zeros((48, 64), dtype=np.uint8)
    grey[:, 32:] = 255
    if mode == "I;16":
        grey[:24, 32:] = 100  # of 16 bit, and not merely white
        Pillow.fromarray(grey.astype(np.uint16) * 257).save(path)
        assert alike(corners(shown(Image(path))), (0, 0, 0), (100, 100, 100), (0, 0, 0), (255, 255, 255))
    else:
        Pillow.fromarray(grey).convert("RGB" if mode == "CMYK" else "L").convert(mode).save(path)
        assert alike(corners(shown(Image(path))), (0, 0, 0), (255, 255, 255), (0, 0, 0), (255, 255, 255))


def test_of_an_animation_the_first_picture(tmp_path: Path) -> None:
    first, second = Pillow.fromarray(quarters()), Pillow.new("RGB", (64, 48))
    first.save(tmp_path / "moving.gif", save_all=True, append_images=[second])
    assert alike(corners(shown(Image(tmp_path / "moving.gif"))), RED, GREEN, BLUE, WHITE)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda there: there / "none.png", "No such file"),
        (lambda there: there, "directory"),
        (lambda there: there / "text.png", "not a picture"),
        (lambda there: there / "empty.png", "not a picture"),
        (lambda there: there / "cut.png", "cut.png"),
        (lambda there: there / "cut.jpg", "cut.jpg"),
        (lambda there: there / "drawing.eps", "not a picture"),
        (lambda there: 3, "got int"),
        (lambda there: None, "got NoneType"),
        (lambda there: [quarters()], "got list"),
        (lambda there: quarters().astype(np.float32), "float32"),
        (lambda there: quarters()[:, :, 0], "shape"),
        (lambda there: np.zeros((48, 64, 4), dtype=np.uint8), "shape"),
        (lambda there: quarters(2000, 10), "width and height, and it gets bars"),
        (lambda there: quarters(8, 8), "width and height, and it gets bars"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, make: Callable[[Path], Any], says: str) -> None:
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    noise = np.random.default_rng(1).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    for ending in ("png", "jpg"):
        Pillow.fromarray(noise).save(tmp_path / f"whole.{ending}")
        whole = (tmp_path / f"whole.{ending}").read_bytes()
        (tmp_path / f"cut.{ending}").write_bytes(whole[: len(whole) // 2])
    Pillow.fromarray(quarters()).save(tmp_path / "drawing.eps")  # which Pillow would hand to Ghostscript
    with pytest.raises(UTDInputError, match=says) as refused:
        Image(make(tmp_path))
    assert "allowed" in str(refused.value)


@pytest.mark.parametrize(
    "options", [{"width": 63}, {"height": 14}, {"width": 5000}, {"fps": 0}, {"fps": 61}, {"width": "64"}]
)
def test_bad_arguments_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UTDInputError, match="allowed"):
        Image(quarters(), **options)


def test_a_file_that_claims_to_be_huge_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.png"
    Pillow.fromarray(quarters()).save(path)
    monkeypatch.setattr(module, "MOST_PIXELS", 64 * 48 - 1)
    with pytest.raises(UTDInputError, match="64 x 48"):
        Image(path)
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UTDInputError, match="too large"):
        Image(path)


async def test_a_camera_sends_it_again_and_again_without_a_thread() -> None:
    tasks = Tasks()
    camera = Camera(tasks, Image(quarters(), fps=60))
    publication = FakePublication()
    camera.start()
    camera.attach(publication)
    view = camera._view
    assert view is not None
    await until(lambda: view._over, "the thread has read it")
    pictures = await publication.let(5)
    assert all(np.array_equal(picture, quarters()) for picture in pictures[-3:])
    await until(lambda: not view.pulling, "the end of its thread")
    assert camera.underruns == 0, "a picture that stands is not late"
    await camera.aclose()
    await until(lambda: not tasks.tasks, "the end of the pumps")
    assert tasks.errors == []
