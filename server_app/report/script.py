"""The page's one script: values under the pointer, series switched on and off.

The page has all its figures without it. It asks nothing of a network; which series are
off stays in the browser until the tab is closed. An open page of a run that goes on is
loaded again, until there has been no news for so long that there will be none.

Charts say in ``data-`` attributes what their points and cells are (``svg``, ``heat``).
"""

RELOAD_SECONDS = 10

_SOURCE = """(() => {
  const doc = document;
  const all = (query, at) => [...at.querySelectorAll(query)];
  const words = text => text ? text.split(" ") : [];
  const within = (value, most) => Math.max(0, Math.min(most, value));
  const tip = doc.body.appendChild(doc.createElement("div"));
  tip.id = "tip";
  tip.hidden = true;
  tip.setAttribute("role", "status");
  const kept = (name, value) => {
    try {
      if (value !== undefined) sessionStorage[name] = value;
      return sessionStorage[name];
    } catch {}
  };
  const tell = (svg, x, y, rows) => {
    tip.replaceChildren(...rows.map(parts => {
      const row = doc.createElement("div");
      row.append(...parts);
      return row;
    }));
    tip.hidden = false;
    const at = new DOMPoint(x, y).matrixTransform(svg.getScreenCTM());
    const wide = tip.offsetWidth;
    const left = at.x + 12 + wide > innerWidth - 4 ? at.x - 12 - wide : at.x + 12;
    tip.style.left = Math.max(4, left) + "px";
    tip.style.top = within(at.y, innerHeight - tip.offsetHeight - 4) + "px";
  };
  const heat = (svg, mark, hide) => {
    const data = svg.dataset;
    const [left, top, width, height] = words(data.box).map(Number);
    const cells = data.cells.split(";").map(words);
    const [rows, columns, axes] = [data.rows, data.columns, data.axes].map(JSON.parse);
    const w = width / columns.length, h = height / rows.length;
    let row = 0, column = -1;
    const to = (r, c) => {
      row = within(r, rows.length - 1);
      column = within(c, columns.length - 1);
      const x = left + column * w, y = top + row * h;
      mark.setAttribute("d", `M${x} ${y}h${w}v${h}h${-w}z`);
      const of = [`${axes[0]} ${rows[row]}`, `${axes[1]} ${columns[column]}`];
      tell(svg, x + w, y, [...of, cells[row][column]].map(text => [text]));
    };
    return {
      at: ({x, y}) => {
        const r = Math.floor((y - top) / h), c = Math.floor((x - left) / w);
        if (rows[r] === undefined || columns[c] === undefined) hide();
        else to(r, c);
      },
      by: (dx, dy) => to(row + dy, column + dx)
    };
  };
  const lines = (svg, mark, hide) => {
    const figure = svg.closest("figure");
    const keys = all(".legend li", figure);
    const every = all("g[data-x]", svg).map((g, i) => ({
      g, key: keys[i], x: words(g.dataset.x), y: words(g.dataset.y),
      of: (g.dataset.of || "").split("\\t"),
      at: [...all("circle", g).map(c => c.cx.baseVal.value),
        ...all("polyline", g).flatMap(line => [...line.points].map(p => p.x))]
    }));
    every.forEach(({g, key}, i) => {
      if (!key) return;
      const button = doc.createElement("button");
      const name = [figure.id, i, g.dataset.name].join("/");
      const set = off => {
        g.style.display = off ? "none" : "";
        button.setAttribute("aria-pressed", !off);
        kept(name, off ? "off" : "");
      };
      button.type = "button";
      button.append(...key.childNodes);
      key.append(button);
      button.onclick = () => set(!g.style.display);
      set(kept(name) === "off");
    });
    const shown = () => every.filter(s => !s.g.style.display && s.at.length);
    const closest = (places, x) => places.reduce(
      (best, at, i) => Math.abs(at - x) < Math.abs(places[best] - x) ? i : best, 0);
    let here = null;
    const to = x => {
      const seen = shown();
      if (!seen.length) return hide();
      const near = seen.map(s => s.at[closest(s.at, x)]);
      here = near[closest(near, x)];
      mark.setAttribute("d", `M${here} TOPVBOTTOM`);
      const found = seen.map(s => [s, closest(s.at, here)])
        .filter(([s, i]) => Math.abs(s.at[i] - here) < 9);
      const [first, index] = found.find(([s, i]) => s.at[i] === here);
      tell(svg, here, TOP, [[`${svg.dataset.label} ${first.x[index]}`],
        ...found.map(([s, i]) => [
          s.key ? s.key.querySelector("svg").cloneNode(true) : "",
          `${s.g.dataset.name}${s.of[i] ? ", " + s.of[i] : ""}: ${s.y[i]}`,
          s.x[i] === first.x[index] ? "" : ` at ${s.x[i]}`])]);
    };
    return {
      at: ({x}) => x < 40 ? hide() : to(x),
      by: dx => {
        const stops = [...new Set(shown().flatMap(s => s.at))].sort((a, b) => a - b);
        const next = here === null ? 0 : stops.indexOf(here) + dx;
        to(stops[within(next, stops.length - 1)]);
      }
    };
  };
  const arrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1],
    ArrowDown: [0, 1]};
  for (const svg of all("svg.chart", doc)) {
    const mark = doc.createElementNS(svg.namespaceURI, "path");
    mark.setAttribute("class", "mark");
    svg.append(mark);
    const hide = () => {
      tip.hidden = true;
      mark.setAttribute("d", "");
    };
    const go = (svg.dataset.cells === undefined ? lines : heat)(svg, mark, hide);
    svg.tabIndex = 0;
    svg.onpointerleave = svg.onblur = hide;
    svg.onpointermove = svg.onpointerdown = event => go.at(
      new DOMPoint(event.clientX, event.clientY)
        .matrixTransform(svg.getScreenCTM().inverse()));
    svg.onkeydown = event => {
      if (event.key === "Escape") hide();
      if (!arrows[event.key]) return;
      event.preventDefault();
      go.by(...arrows[event.key]);
    };
  }
  const state = doc.querySelector("[data-until]");
  if (state) setInterval(() => {
    if (Date.now() > state.dataset.until * 1000) state.textContent = state.dataset.late;
    else if (!doc.querySelector("svg.chart:hover, figure :focus")) location.reload();
  }, RELOAD);
})();
"""


def script(top: int, bottom: int) -> str:
    """Return the script, for charts whose lines are drawn between two heights."""
    packed = "\n".join(line.strip() for line in _SOURCE.splitlines())
    values = {"TOP": top, "BOTTOM": bottom, "RELOAD": RELOAD_SECONDS * 1000}
    for name, value in values.items():
        packed = packed.replace(name, str(value))
    return packed
