"""Reports in a real browser: what a person sees, on a desk and on a phone, by day and by night."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

from storekeep.backtest import draft_page, report
from tests.reports import CASES, DRAFTS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is absent; Debian's package has one"),
]
QUIET = ("--disable-quic", "--disable-background-networking", "--disable-component-update")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, "--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    paths = {case: folder / f"{case.replace(' ', '-')}.html" for case in (*CASES, *DRAFTS)}
    for case, make in CASES.items():
        report.write_html(make(), paths[case])
    for case, make in DRAFTS.items():
        draft_page.write_html(make(), paths[case])
    return paths


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("case", [*CASES, *DRAFTS])
def test_it_can_be_read(
    browser: Browser,
    pages: dict[str, Path],
    case: str,
    width: int,
    scheme: Literal["light", "dark"],
) -> None:
    path = pages[case]
    context = browser.new_context(
        viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    assert complaints == []
    assert asked == [path.as_uri()]
    assert not sticks_out(page)
    assert contrast(page) >= 4.5
    assert page.locator("h1").count() == 1
    assert page.locator("h2").all_inner_texts()[0]
    # Of a chart drawn for a desk and for a phone one is shown.
    charts = [chart for chart in page.locator("svg[role=img]").all() if chart.is_visible()]
    assert charts or case == "nothing"
    for chart in charts:
        box = chart.bounding_box()
        assert box is not None
        assert box["width"] > 100
        assert box["height"] > 40
    for more in page.locator("details:not([open]) > summary").all()[::-1]:
        more.focus()
        page.keyboard.press("Enter")
    assert page.locator("details:not([open])").count() == 0
    assert not sticks_out(page)
    context.close()


def sticks_out(page: Page) -> bool:
    """Whether the page has to be pushed sideways to be read."""
    return bool(page.evaluate("document.documentElement.scrollWidth > window.innerWidth"))


def contrast(page: Page) -> float:
    """Contrast of the page's text with its ground (WCAG 2.2, 1.4.3)."""
    return float(
        page.evaluate(
            """() => {
              const parse = (text) => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
              const light = (colour) => {
                const [r, g, b] = parse(colour).map((each) => {
                  const part = each / 255;
                  return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
                });
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
              };
              const opaque = (element) => {
                const found = getComputedStyle(element).backgroundColor;
                return found !== 'rgba(0, 0, 0, 0)' ? found
                  : element.parentElement ? opaque(element.parentElement) : 'rgb(255, 255, 255)';
              };
              const worst = [...document.querySelectorAll('p, td, th, h1, h2, h3, figcaption, summary, code')]
                .filter((element) => element.innerText && element.checkVisibility())
                .map((element) => [light(getComputedStyle(element).color), light(opaque(element))])
                .map(([one, two]) => (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05));
              return Math.min(...worst);
            }"""
        )
    )
