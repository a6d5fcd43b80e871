"""The page in a real Chromium, as wide as a phone and as a desktop."""

import io
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from live import photo
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from served import Served

from latentseg.data.colors import distinct_palette
from latentseg.demo.answer import read_photo

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
WIDTHS = {"phone": 390, "desktop": 1280}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield found
        found.close()


@pytest.fixture(params=WIDTHS)
def tab(request: pytest.FixtureRequest, browser: Browser, page: Served) -> Iterator[Page]:
    """The page, opened; at its end it has asked nobody else, has had no error and is no wider than the window."""
    width, outside, errors = WIDTHS[request.param], [], []
    touch = request.param == "phone"
    context = browser.new_context(viewport={"width": width, "height": 844}, has_touch=touch, is_mobile=touch)
    found = context.new_page()
    found.on("request", lambda asked: outside.append(asked.url))
    found.on("pageerror", lambda error: errors.append(str(error)))
    found.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
    found.goto(page.address)
    yield found
    assert [url for url in outside if not url.startswith((page.address, "data:", "blob:"))] == []
    assert errors == []
    assert found.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


def give(tab: Page, path: Path) -> None:
    tab.locator("input[type=file]").first.set_input_files(path)


def pixel(tab: Page, x: int, y: int) -> list[int]:
    """The colour that is drawn at a pixel of the photo."""
    code = "([x, y]) => [...document.querySelector('.ls-frame canvas').getContext('2d').getImageData(x, y, 1, 1).data]"
    return list(tab.evaluate(code, [x, y]))[:3]


def point(tab: Page, x: int, y: int, size: tuple[int, int]) -> None:
    """Point at a pixel: with the mouse, or on a phone with a finger."""
    canvas = tab.locator(".ls-frame canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    place = (box["x"] + (x + 0.5) * box["width"] / size[0], box["y"] + (y + 0.5) * box["height"] / size[1])
    if tab.evaluate("navigator.maxTouchPoints"):
        tab.touchscreen.tap(*place)
    else:
        tab.mouse.move(*place)


def set_range(tab: Page, name: str, key: str) -> None:
    """Move a slider to an end, by keyboard."""
    tab.locator(f"[data-part={name}]").focus()
    tab.keyboard.press(key)


def test_a_photo_with_all_that_is_shown_of_it(tab: Page, page: Served, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(photo(48, 64)).save(path)
    ours, plain = (model.predict(path) for model in page.models.values())
    palette = page.models["ours"].run.palette
    assert ours.latent is not None
    give(tab, path)
    expect(tab.locator(".ls-frame canvas")).to_be_visible(timeout=30_000)
    set_range(tab, "opacity", "End")
    assert pixel(tab, 8, 20) == palette[ours.labels[20, 8]].tolist()
    assert pixel(tab, 55, 20) == palette[plain.labels[20, 55]].tolist()
    set_range(tab, "divide", "End")
    assert pixel(tab, 55, 20) == palette[ours.labels[20, 55]].tolist()

    point(tab, 55, 20, (64, 48))
    name, sure = page.models["ours"].classes[ours.labels[20, 55]], round(100 * float(ours.probs[:, 20, 55].max()))
    readout = tab.locator(".ls-readout")
    expect(readout).to_contain_text(f"ours: {name}, {sure} %latent l{ours.latent[20, 55]}, ")
    expect(readout).to_contain_text(f"plain: {page.models['plain'].classes[plain.labels[20, 55]]}, ")
    expect(tab.locator(".ls-here .ls-name").get_by_text(name, exact=True)).to_be_visible()
    tab.locator(".ls-frame canvas").focus()
    before = readout.text_content()
    for _ in range(20):
        tab.keyboard.press("Shift+ArrowDown")
        tab.keyboard.press("Shift+ArrowLeft")
    assert readout.text_content() != before

    tab.get_by_role("radio", name="Latent classes").check()
    assert pixel(tab, 8, 20) == distinct_palette(4)[ours.latent[20, 8]].tolist()
    tab.get_by_role("radio", name="Confidence").check()
    expect(tab.locator(".ls-ramp")).to_be_visible()
    tab.get_by_role("radio", name="Classes", exact=True).check()
    set_range(tab, "opacity", "Home")
    assert np.abs(np.array(pixel(tab, 8, 20)) - photo(48, 64)[20, 8]).max() < 30  # the photo, as JPEG
    set_range(tab, "opacity", "End")

    with tab.expect_download() as mask:
        tab.get_by_role("link", name="Download mask of ours").click()
    np.testing.assert_array_equal(np.array(Image.open(mask.value.path())), ours.labels)
    with tab.expect_download() as overlay:
        tab.get_by_role("link", name="Download overlay").click()
    np.testing.assert_array_equal(
        np.array(Image.open(overlay.value.path()).convert("RGB")), palette[ours.labels].astype(np.uint8)
    )
    assert (mask.value.suggested_filename, overlay.value.suggested_filename) == ("mask-1.png", "overlay.png")


def test_files_that_cannot_be_shown_are_explained(tab: Page, tmp_path: Path) -> None:
    message = tab.get_by_role("status").filter(has_text="cannot be shown")
    sound = io.BytesIO()
    Image.fromarray(photo(200, 300)).save(sound, "PNG")
    Image.new("1", (8000, 4001)).save(tmp_path / "large.png")
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "half.png").write_bytes(sound.getvalue()[: len(sound.getvalue()) // 2])
    (tmp_path / "heavy.png").write_bytes(bytes(2**20 + 1))
    give(tab, tmp_path / "heavy.png")
    expect(tab.locator(".toast-body")).to_contain_text("maximum allowed size")
    for name, words in {
        "text.png": "has no readable image content",
        "large.png": "has 8000 x 4001 pixels, and this page takes 32 million",
        "half.png": "has no readable image content",
    }.items():
        give(tab, tmp_path / name)
        expect(message).to_contain_text(words, timeout=30_000)
        tab.get_by_label("Clear").or_(tab.get_by_label("Remove Image")).first.click()
        expect(tab.get_by_role("status").filter(has_text="Drop a photo")).to_be_visible(timeout=30_000)


def test_an_example_and_the_folder(tab: Page, page: Served) -> None:
    tab.locator(".gallery-item, .gallery button").first.click()
    expect(tab.locator(".ls-frame canvas")).to_be_visible(timeout=30_000)
    assert tab.locator(".ls-frame canvas").get_attribute("width") == "48"
    tab.get_by_role("tab", name="Folder").click()
    expect(tab.locator("#gallery img")).to_have_count(3, timeout=30_000)
    expect(tab.locator("#gallery")).to_contain_text("broken.png: cannot be read")
    tab.locator("#gallery .grid-container button").first.click()
    expect(tab.locator(".ls-frame canvas[width='60']")).to_be_visible(timeout=30_000)
    tab.get_by_role("tab", name="Latent classes").click()
    expect(tab.get_by_text(re.compile("latentseg analyse .*ours"))).to_be_visible()
    assert read_photo(page.folder / "images/0.png", 16).shape == (40, 60, 3)
