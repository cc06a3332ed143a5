"""The page around the figures: one HTML document with its style, and nothing else.

No address: it opens from a disk without a network, in the light or the dark theme of
the reader, from the width of a phone up, and is whole without its script.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from server_app.report.script import script
from server_app.report.svg import BOTTOM, HEIGHT, TOP

# Series colours: those of Okabe and Ito, darker on the light ground and lighter on the
# dark one until they stand out from it. A test works out how far apart they are for the
# colour-blind.
CSS = """
:root{color-scheme:light dark;--ground:#fff;--card:#f7f8fa;--ink:#1c2330;--soft:#5a6577;
--rule:#dde1e8;--heat:#0b4f9e;--c0:#0060a0;--c1:#d55e00;--c2:#009a70;--c3:#1c2330;
--c4:#3f8fc4;--c5:#94357a;--c6:#a87400;--c7:#5a5a5a}
@media (prefers-color-scheme:dark){:root{--ground:#12161d;--card:#1a2029;--ink:#e6eaf1;
--soft:#9aa6b8;--rule:#2d3643;--heat:#6cb6ff;--c0:#56b4e9;--c1:#f0763a;--c2:#009e73;
--c3:#f0e442;--c4:#8fa8ff;--c5:#cc79a7;--c6:#e69f00;--c7:#e8ecf2}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1280px;padding:20px 16px 48px;background:var(--ground);
color:var(--ink);font:15px/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.4rem;line-height:1.25;margin:0 0 4px}
h2{font-size:1.05rem;margin:28px 0 10px}
p{margin:4px 0}.soft,figcaption span,.scale{color:var(--soft);font-size:.85rem}
.tiles{display:grid;gap:10px;grid-template-columns:repeat(auto-fill,minmax(148px,1fr));
margin:16px 0 0}
.tiles div{background:var(--card);border:1px solid var(--rule);border-radius:8px;
padding:8px 12px}
.tiles b{display:block;font-size:1.3rem;font-variant-numeric:tabular-nums}
.grid{display:grid;gap:16px;
grid-template-columns:repeat(auto-fill,minmax(min(100%,376px),1fr))}
figure{margin:0;background:var(--card);border:1px solid var(--rule);border-radius:8px;
padding:10px 12px;min-width:0}
figcaption{font-weight:600;font-size:.95rem;margin-bottom:4px}
figcaption span{display:block;font-weight:400}
svg.chart{display:block;width:100%;height:auto;max-width:520px}
text{font:11px system-ui,sans-serif;fill:var(--soft)}text.title{fill:var(--ink)}
path.grid{stroke:var(--rule);fill:none}
.frame{fill:none;stroke:var(--rule)}
.heat path{fill:var(--heat);shape-rendering:crispEdges}
.line{fill:none;stroke-width:2;stroke-linejoin:round}
.d1{stroke-dasharray:7 3}.d2{stroke-dasharray:2 3}.d3{stroke-dasharray:8 3 2 3}
.band{stroke:none;fill-opacity:.16}.dot{stroke:none}
.mark{fill:none;stroke:var(--ink);stroke-width:1;pointer-events:none}
#tip .key{vertical-align:middle}
#tip{position:fixed;z-index:1;pointer-events:none;max-width:min(340px,92vw);
background:var(--ground);border:1px solid var(--soft);border-radius:6px;
padding:4px 8px;font-size:.8rem;font-variant-numeric:tabular-nums}
.legend button{font:inherit;color:inherit;background:none;border:0;padding:2px 0;
cursor:pointer;text-align:left}.legend [aria-pressed=false]{opacity:.5;
text-decoration:line-through}:focus-visible{outline:2px solid var(--c0);
outline-offset:2px}a{color:var(--heat)}
.state{display:inline-block;border:1px solid var(--rule);border-radius:99px;
padding:1px 10px;margin-top:6px;font-size:.88rem;background:var(--card)}
.state::before{content:"";display:inline-block;width:.6em;height:.6em;margin-right:6px;
border-radius:50%;background:var(--soft)}
.state.running::before,.state.complete::before{background:var(--c2)}
.state.failed::before,.state.died::before{background:var(--c1)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 14px;margin:6px 0 0;
padding:0;font-size:.85rem}
.key{width:26px;height:8px;margin-right:5px}
.scale{display:flex;gap:8px;align-items:center;margin:2px 0 0 4px}
.ramp{width:90px;height:9px;border:1px solid var(--rule);
background:linear-gradient(90deg,transparent,var(--heat))}
.wide{overflow-x:auto}.wide th,td:first-child{overflow-wrap:break-word}
table{border-collapse:collapse;width:100%;font-size:.88rem}
th,td{text-align:left;padding:4px 10px 4px 0;border-bottom:1px solid var(--rule);
vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
td.n,td.s{white-space:nowrap}
summary{cursor:pointer;margin-top:24px}
""" + "".join(
    f".line.s{i}{{stroke:var(--c{i})}}.dot.s{i},.band.s{i}{{fill:var(--c{i})}}"
    for i in range(8)
)


@dataclass(frozen=True)
class Linked:
    """A cell of a table that leads elsewhere."""

    text: str
    href: str


Cell = str | Linked
SHORT_CELL = 24
"""Letters of a cell that is on one line."""


def page(title: str, body: str) -> str:
    """Return the document."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # Without an icon of its own a browser asks for /favicon.ico.
        f'<link rel="icon" href="data:,"><title>{escape(title)}</title>'
        f"<style>{CSS}</style></head>\n<body>{body}"
        f"<script>{script(TOP, HEIGHT - BOTTOM)}</script></body></html>\n"
    )


def state_line(state: str, why: str, *, patience: float | None = None) -> str:
    """Return what a run is, in a line.

    Parameters
    ----------
    patience : float, optional
        Seconds from now for which news are to be expected: an open page loads itself
        again until then, and says that there were none.
    """
    text = escape(f"{state}{': ' if why else ''}{why}")
    if patience is None:
        return f'<p class="state {state}">{text}</p>'
    now = time.time()
    late = (
        f"no news since {time.strftime('%Y-%m-%d %H:%M', time.localtime(now))}: "
        "the run may have been killed"
    )
    return (
        f'<p class="state {state}" data-until="{now + patience:.0f}" '
        f'data-late="{escape(late)}">{text}</p>'
        "<noscript><p>Reload the page to see newer rounds.</p></noscript>"
    )


def figure(name: str, caption: str, note: str, content: str) -> str:
    """Return one captioned figure; ``name`` is its id in the document."""
    detail = f"<span>{escape(note)}</span>" if note else ""
    return (
        f'<figure id="{name}"><figcaption>{escape(caption)}{detail}</figcaption>'
        f"{content}</figure>\n"
    )


def tiles(items: Iterable[tuple[str, str]]) -> str:
    """Return the row of numbers at the top: (what, how much)."""
    cells = "".join(
        f'<div><span class="soft">{escape(what)}</span><b>{escape(value)}</b></div>'
        for what, value in items
    )
    return f'<div class="tiles">{cells}</div>'


def table(header: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """Return a table that scrolls by itself where the page is too narrow.

    A column of numbers is set to the right, and short cells are on one line.
    """
    kinds = [_kind([row[i] for row in rows]) for i in range(len(header))]

    def line(tag: str, cells: Sequence[Cell]) -> str:
        pairs = zip(kinds, cells, strict=True)
        return "".join(f"<{tag}{kind}>{_cell(c)}</{tag}>" for kind, c in pairs)

    head = line("th", header)
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _cell(cell: Cell) -> str:
    if isinstance(cell, Linked):
        return f'<a href="{escape(cell.href)}">{escape(cell.text)}</a>'
    return escape(cell)


def _kind(cells: Sequence[Cell]) -> str:
    if all(map(_is_number, cells)):
        return ' class="n"'
    short = all(isinstance(cell, str) and len(cell) <= SHORT_CELL for cell in cells)
    return ' class="s"' if short else ""


def _is_number(cell: Cell) -> bool:
    if isinstance(cell, Linked):
        return False
    parts = cell.split(" ± ")
    return cell == "–" or all(part.replace(".", "", 1).isdecimal() for part in parts)
