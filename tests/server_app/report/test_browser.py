"""The pages in a real browser: no error, every figure, nothing too wide."""

import json
import re
import shutil
import subprocess
import sys
import tomllib
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from server_app.__main__ import main
from server_app.commands.simulate import simulate

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).resolve().parents[3]
DARK = ("--blink-settings=preferredColorScheme=0",)
SCREENS = {"desk": (1280, ()), "phone": (390, DARK)}

# The browser has a smallest window, a frame has none. The probe runs in the frame after
# the page's own content; the document around it notes what it says.
AROUND = """<!doctype html><body style="margin:0"><script>
addEventListener("message", e => { document.body.dataset.found = e.data; });
</script><iframe src="probed.html" width="WIDTH" height="900" style="border:0">"""
PROBE = """<script>addEventListener("load", () => {
const seen = [...document.querySelectorAll("svg.chart")];
const text = [...document.querySelectorAll("svg.chart text")];
const wide = [...document.querySelectorAll("body *")].filter(e =>
  !e.closest(".wide") && e.getBoundingClientRect().right > innerWidth + 1);
parent.postMessage(JSON.stringify({
  width: innerWidth, page: document.documentElement.scrollWidth, wide: wide.length,
  broken: [...document.querySelectorAll("td:first-child")].filter(e => {
    const words = document.createRange();
    words.selectNodeContents(e);
    return /^\\w+$/.test(e.textContent) && words.getClientRects().length > 1;
  }).length,
  empty: seen.filter(s => s.getBoundingClientRect().height < 50).length,
  smallest: Math.min(...text.map(t => t.getBoundingClientRect().height)),
  figures: [...document.querySelectorAll("figure[id]")].map(f => f.id),
  ground: getComputedStyle(document.body).backgroundColor,
  requests: performance.getEntriesByType("resource").map(r => r.name),
  ...tried()}), "*");
});
const tried = () => {
  const tip = document.querySelector("#tip");
  const said = () => tip.hidden ? "" : [...tip.children].map(row => row.textContent);
  const point = (svg, x, y) => {
    const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
    svg.dispatchEvent(new PointerEvent("pointermove", {clientX: at.x, clientY: at.y}));
    const box = tip.getBoundingClientRect();
    return {said: said(), fits: box.left >= 0 && box.right <= innerWidth};
  };
  const press = (svg, key) => {
    svg.dispatchEvent(new KeyboardEvent("keydown", {key, cancelable: true}));
    return said();
  };
  const chart = document.querySelector("svg[data-label=round]");
  const lines = chart.querySelectorAll("g[data-name]");
  const button = chart.closest("figure").querySelector(".legend button");
  const map = document.querySelector("#load svg, #load-0 svg");
  const found = {right: point(chart, 367, 100), left: point(chart, 47, 100)};
  found.next = press(chart, "ArrowRight");
  button.click();
  found.off = [button.getAttribute("aria-pressed"), lines[0].style.display,
    point(chart, 47, 100).said.length];
  button.click();
  found.on = [button.getAttribute("aria-pressed"), lines[0].style.display];
  found.gone = press(chart, "Escape");
  found.cell = point(map, Number(map.dataset.box.split(" ")[0]) + 2, 11);
  found.below = press(map, "ArrowDown");
  found.tabs = document.querySelectorAll("svg.chart[tabindex='0']").length === seen();
  return {tried: found};
};
const seen = () => document.querySelectorAll("svg.chart").length;
</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs chromium on the PATH"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the reports of a real run and of one on own data, and a comparison."""
    folder = tmp_path_factory.mktemp("runs")
    config: dict[str, Any] = {
        "num-rounds": 4,
        "train-samples": 400,
        "drop-out": 0.2,
        "output-dir": str(folder / "runs"),
    }
    for strategy in ("flex-moe", "random"):
        simulate({**config, "strategy": strategy}, 6)
    runs = sorted((folder / "runs").iterdir())
    comparison = folder / "comparison.html"
    assert main(["report", *map(str, runs), "--out", str(comparison)]) == 0
    script = ROOT / "examples" / "own_data" / "make_sites.py"
    subprocess.run([sys.executable, script, folder / "demo"], check=True)
    run_toml = tomllib.loads((folder / "demo" / "machines" / "run.toml").read_text())
    simulate({**run_toml, "num-rounds": 2, "output-dir": str(folder / "own")}, 3)
    [own] = (folder / "own").iterdir()
    pages = {"run": runs[0] / "report.html", "own": own / "report.html"}
    return {**pages, "comparison": comparison}


def browsed(page: Path, screen: str, tmp_path: Path) -> dict[str, Any]:
    width, extra = SCREENS[screen]
    html = page.read_text()
    assert 'data-until="' not in html, "a finished run must not reload"
    (tmp_path / "probed.html").write_text(html.replace("</body>", f"{PROBE}</body>"))
    around = tmp_path / "around.html"
    around.write_text(AROUND.replace("WIDTH", str(width)))
    done = subprocess.run(
        [
            str(BROWSER),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--enable-logging=stderr",
            "--window-size=1400,900",
            *extra,
            "--virtual-time-budget=2000",
            "--dump-dom",
            around.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    found = re.search(r'data-found="([^"]*)"', done.stdout)
    assert found, done.stdout[-2000:]
    result: dict[str, Any] = json.loads(unescape(found[1]))
    return result


FIGURES = {
    "run": {
        "accuracy-rounds",
        "accuracy-bytes",
        "accuracy-seconds",
        "recall",
        "confusion",
        "clients",
        "load",
        "balance",
        "churn",
        "classes",
        "fitness-before",
        "fitness-middle",
        "fitness-end",
        "traffic",
        "seconds",
    },
    "comparison": {
        *(
            f"{m}-{x}"
            for m in ("server_global", "balanced", "client_global", "client_local")
            for x in ("rounds", "bytes")
        ),
        "balance",
        "load-0",
        "load-1",
    },
}
FIGURES["own"] = FIGURES["run"]
LAST = {"run": 4, "own": 2, "comparison": 4}
"""The last round of each page."""


@pytest.mark.parametrize("screen", SCREENS)
@pytest.mark.parametrize("page", FIGURES)
def test_a_page_is_whole_and_fits(
    page: str, screen: str, pages: dict[str, Path], tmp_path: Path
) -> None:
    found = browsed(pages[page], screen, tmp_path)
    assert found["width"] == SCREENS[screen][0]
    assert found["page"] <= found["width"]
    assert found["wide"] == found["empty"] == 0
    assert found["broken"] == 0, "a word of a table's first column is on two lines"
    assert found["smallest"] >= 9
    assert set(found["figures"]) == FIGURES[page]
    assert found["requests"] == []
    tried = found["tried"]
    assert tried["right"]["said"][0] == f"round {LAST[page]}"
    assert tried["left"]["said"][0] == "round 1"
    assert tried["next"][0] == "round 2"
    lines = tried["left"]["said"][1:]
    assert all(re.fullmatch(r"[\w-]+: [\d.]+", text) for text in lines), lines
    # Rounds 1 and 2 are drawn of each, so one line less is one row less.
    assert tried["off"] == ["false", "none", len(lines)]
    assert tried["on"] == ["true", ""]
    assert tried["gone"] == ""
    assert tried["cell"]["said"][:2] == ["expert 0", "round 1"]
    assert tried["below"][0] == "expert 1"
    assert tried["tabs"]
    assert all(tried[at]["fits"] for at in ("right", "left", "cell"))
    dark = found["ground"] != "rgb(255, 255, 255)"
    assert dark == (SCREENS[screen][1] == DARK)
