"""The page, opened in a real browser: nothing in its console, nothing over its edge."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from jaxcompress.report import compare_page
from jaxcompress.report.html import _describe_map
from jaxcompress.report.page import experiment_page
from jaxcompress.report.sections import Section
from tests.report.example import HOSTILE, comparison

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
LONG = "some-organisation/" + "a-model-with-a-very-long-name-" * 5


@pytest.fixture(scope="session")
def browser():
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None and os.environ.get("CI", "").lower() in ("1", "true"):
        pytest.fail("no browser in CI: install chromium")
    if found is None:
        pytest.skip("no browser: install chromium")
    return found


@pytest.fixture(scope="session")
def page():
    return compare_page(comparison())


@pytest.fixture(scope="session")
def awkward():
    return compare_page(comparison(teacher=LONG, student=HOSTILE, heads=32))


def visit(browser, path: Path, *options: str) -> tuple[str, list[str]]:
    """The document after it was rendered, and the lines of its console."""
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--no-first-run", f"--user-data-dir={path.parent / 'profile'}", "--enable-logging=stderr",
        "--v=0", *options, "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    environment = os.environ | {"HOME": str(path.parent)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=400, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-2000:]
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return done.stdout, console


def write(folder: Path, text: str, name: str = "page.html") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("which", ["page", "awkward"])
def test_a_browser_shows_it_without_complaint(browser, tmp_path, request, which):
    text = request.getfixturevalue(which)
    dom, console = visit(browser, write(tmp_path, text))
    assert console == []
    assert dom.count("<section") == text.count("<section") == 5
    assert dom.rstrip().endswith("</html>")


@pytest.mark.parametrize(
    "wrong",
    ["<script>nonsense()</script>", '<img src="https://example.invalid/x.png" alt="">'],
    ids=["script", "request"],
)
def test_a_page_with_an_error_is_seen(browser, tmp_path, page, wrong):
    """The policy of the page forbids both, and the browser says so: the check above can fail."""
    _, console = visit(browser, write(tmp_path, page.replace("<main>", f"<main>{wrong}")))
    assert console
    without = POLICY.sub("", page).replace("<main>", f"<main>{'<script>nonsense()</script>'}")
    _, console = visit(browser, write(tmp_path, without))
    assert any("nonsense is not defined" in line for line in console)


MEASURE = """
<body><iframe src="page.html" style="border:0;width:{width}px;height:900px"></iframe><script>
addEventListener("load", () => {{
  const inner = document.querySelector("iframe").contentDocument;
  const root = inner.documentElement;
  const images = [...inner.images].map(image => image.complete && image.naturalWidth > 0);
  const out = [...inner.querySelectorAll("body *")].filter(one => !one.closest(".scroll *")
    && one.getBoundingClientRect().right > {width} + 1).map(one => one.outerHTML.slice(0, 80));
  const boxes = [...inner.querySelectorAll(".scroll")];
  document.title = JSON.stringify({{width: inner.defaultView.innerWidth, scroll: root.scrollWidth,
    images, out, inside: boxes.filter(box => box.scrollWidth > box.clientWidth).length}});
}});
</script></body>
"""


def measure(browser, folder: Path, text: str, width: int) -> dict:
    """Widths as the browser lays the page out in a frame: windows are not made below 500 px."""
    # The script stands outside of the page; same origin for files is what the option grants.
    write(folder, text)
    outer = write(folder, MEASURE.format(width=width), "outer.html")
    dom, console = visit(
        browser, outer, "--allow-file-access-from-files", f"--window-size={width + 200},1000"
    )
    assert console == []
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", dom)[1]))


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("which", ["page", "awkward"])
def test_the_page_never_scrolls_sideways(browser, tmp_path, request, which, width):
    seen = measure(browser, tmp_path, request.getfixturevalue(which), width)
    assert seen["width"] == width
    assert seen["scroll"] <= width
    assert seen["out"] == []
    assert seen["images"] == [True] * 6
    # On a phone the wide figures scroll inside their own boxes.
    assert (seen["inside"] >= 6) or width > 390


def test_an_overflow_would_be_measured(browser, tmp_path, page):
    wide = page.replace("<main>", '<main><p style="width:1500px;max-width:none">wide</p>')
    seen = measure(browser, tmp_path, wide, 390)
    assert seen["scroll"] > 1400
    assert seen["out"]


class Tags(HTMLParser):
    """All tags with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def of(self, *names):
        return [attributes for tag, attributes in self.found if tag in names]


def test_it_needs_nothing_else(page):
    tags = Tags(page)
    assert tags.of("script", "iframe", "object", "embed", "base", "form") == []
    links = [a[k] for _, a in tags.found for k in ("src", "href", "srcset", "action") if k in a]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "://" not in page
    assert "@import" not in page
    assert re.findall(r"url\(", page) == []
    assert not any(name.startswith("on") for _, a in tags.found for name in a)


def test_it_is_a_proper_document(page):
    tags = Tags(page)
    assert page.lstrip().startswith("<!DOCTYPE html>")
    assert tags.of("html") == [{"lang": "en"}]
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in tags.of("meta")
    assert "<title>distilgpt2 against gpt2 · jaxcompress</title>" in page
    assert {"rel": "icon", "href": "data:,"} in tags.of("link")
    ids = [attributes["id"] for _, attributes in tags.found if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {a["href"][1:] for a in tags.of("a")} <= set(ids)


def test_figures_are_described(page):
    images = Tags(page).of("img")
    assert len(images) == 6
    assert len({image["alt"] for image in images}) == 6
    assert "Removing head 7.11 costs the teacher most (47.1 %)" in images[0]["alt"]
    nats = next(i["alt"] for i in images if "for ioi: effect" in i["alt"])
    side = comparison()["tasks"][1]["dependence"]["student"]
    assert f"costs the student most ({-np.nanmin(side['heads']):.2f} nats)" in nats
    assert all(image["width"] and image["height"] for image in images)
    help_all = {"heads": [[0.5, 1.0]], "heads_percent": [[25.0, 50.0]]}
    sides = {"teacher": help_all, "student": {"heads": [[0.5, -1.0]]}}
    told = _describe_map({"name": "ioi", "dependence": sides})
    assert told.endswith("each MLP. Removing head 0.1 costs the student most (1.00 nats).")


def test_nothing_of_the_template_or_of_python_is_left(page, awkward):
    for text in (page, awkward):
        visible = re.sub(r'src="data:[^"]*"', "", text)
        for left in ("{{", "}}", "{%", "{#", "Undefined", ">None<", ">nan<", "jinja"):
            assert left not in visible
        assert "n/a" in visible


def test_hostile_names_are_text(awkward):
    assert HOSTILE not in awkward
    assert html.escape(HOSTILE, quote=False).split("'")[0] in awkward
    assert Tags(awkward).of("script") == []
    data = comparison()
    task, pair = data["tasks"][0], data["tasks"][0]["alignment"]["pairs"][0]
    task["name"] = pair["student"] = '"><svg onload=x>'
    task["fate"]["rules"] = data["summary"][0] = data["settings"]["device"] = HOSTILE
    text = compare_page(data)
    assert Tags(text).of("script", "svg") == []


def test_the_summary_comes_first(page):
    order = [
        "<h1>", "Two of the teacher", "At a glance", ">Cost</h2>", ">numerals</h2>",
        ">ioi</h2>", "What the numbers mean", ">Settings</h3>", "To reproduce",
    ]  # fmt: skip
    places = [page.index(text, page.index("<body>")) for text in order[:3]]
    places += [page.rindex(text) for text in order[3:]]
    assert places == sorted(places)


def test_missing_parts_do_not_stop_it():
    models = {"teacher": {"name": "a"}, "student": {"name": "b"}}
    assert "b</span> against" in compare_page(models | {"tasks": []})
    text = compare_page(models | {"tasks": [{"name": "ioi"}], "settings": {"seed": None}})
    assert "n/a" in text
    with pytest.raises(ValueError, match=r"comparison\.teacher\.name"):
        compare_page({"tasks": []})


def test_columns_of_words_are_flush_left():
    """And those of numbers flush right, "n/a" and "never" among them too."""
    rows = (("25%", "pruned", "3", "n/a"), ("50%", "from scratch", "never", "-1.5 nats"))
    page = experiment_page(
        "t", tables={"t": Section(("removed", "way", "neurons", "change"), rows)}, config={}
    )
    assert '<th scope="col" class="text">way</th>' in page
    assert '<td class="text">from scratch</td>' in page
    assert page.count('class="text"') == 3
    assert "<td>never</td>" in page and '<td class="na">n/a</td>' in page
