"""The page around the figures: one HTML document with its style, and nothing else.

No script and no address: it opens from a disk without a network, in the light or the
dark theme of the reader, from the width of a phone up.
"""

from collections.abc import Iterable, Sequence
from html import escape

# Series colours: Okabe and Ito's palette, told apart by most colour-blind readers;
# lighter on the dark ground.
CSS = """
:root{color-scheme:light dark;--ground:#fff;--card:#f7f8fa;--ink:#1c2330;--soft:#5a6577;
--rule:#dde1e8;--heat:#0b4f9e;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#b0568f;
--c4:#b8860b;--c5:#3f8fc4;--c6:#6b5bb0;--c7:#4d4d4d}
@media (prefers-color-scheme:dark){:root{--ground:#12161d;--card:#1a2029;--ink:#e6eaf1;
--soft:#9aa6b8;--rule:#2d3643;--heat:#6cb6ff;--c0:#56b4e9;--c1:#ff8f4d;--c2:#3fcf9f;
--c3:#e39ac6;--c4:#e6c04f;--c5:#8fd0f5;--c6:#b3a5f2;--c7:#c8c8c8}}
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
.dash{stroke-dasharray:5 3}.dot{stroke:none}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:2px 14px;margin:6px 0 0;
padding:0;font-size:.85rem}
.key{width:18px;height:8px;margin-right:5px}
.scale{display:flex;gap:8px;align-items:center;margin:2px 0 0 4px}
.ramp{width:90px;height:9px;border:1px solid var(--rule);
background:linear-gradient(90deg,transparent,var(--heat))}
.wide{overflow-x:auto}.wide th,td:first-child{overflow-wrap:break-word}
table{border-collapse:collapse;width:100%;font-size:.88rem}
th,td{text-align:left;padding:4px 10px 4px 0;border-bottom:1px solid var(--rule);
vertical-align:top}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
summary{cursor:pointer;margin-top:24px}
""" + "".join(
    f".line.s{i}{{stroke:var(--c{i})}}.dot.s{i}{{fill:var(--c{i})}}" for i in range(8)
)

REFRESH_SECONDS = 10


def page(title: str, body: str, *, refresh: bool = False) -> str:
    """Return the document; ``refresh`` makes an open page load itself again."""
    again = (
        f'<meta http-equiv="refresh" content="{REFRESH_SECONDS}">' if refresh else ""
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # Without an icon of its own a browser asks for /favicon.ico.
        f'<link rel="icon" href="data:,">{again}<title>{escape(title)}</title>'
        f"<style>{CSS}</style></head>\n<body>{body}</body></html>\n"
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


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table that scrolls by itself where the page is too narrow.

    A column of numbers is set to the right.
    """
    kinds = [
        ' class="n"' if all(_is_number(row[i]) for row in rows) else ""
        for i in range(len(header))
    ]

    def line(tag: str, cells: Sequence[str]) -> str:
        pairs = zip(kinds, cells, strict=True)
        return "".join(f"<{tag}{kind}>{escape(c)}</{tag}>" for kind, c in pairs)

    head = line("th", header)
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def _is_number(cell: str) -> bool:
    return cell.replace(".", "", 1).isdecimal() or cell == "–"
