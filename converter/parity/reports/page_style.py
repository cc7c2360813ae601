"""How a report's page looks on a screen of any width, in light and dark, and on paper; and the one script that it runs."""

from __future__ import annotations

import base64
import hashlib

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --faint: #4a5057; --rule: #d9dde1; --line: #2c5fb3; --other: #b5561a;
  --good: #17663a; --bad: #a3180c; --tint: #fdecea; --paper: #fff; --card: #f5f6f8; }
@media screen and (prefers-color-scheme: dark) { :root { --ink: #e6e8ea; --faint: #a5adb5; --rule: #3a4046;
  --line: #7fabf0; --other: #f0a060; --good: #6fcf97; --bad: #ff8a7a; --tint: #45201c; --paper: #16191c; --card: #1f2327; } }
* { box-sizing: border-box; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem; color: var(--ink);
  background: var(--paper); overflow-wrap: break-word; }
dd, li, .sides td, .card { overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { margin: .3rem 0; } a { color: var(--line); } .faint { color: var(--faint); } .option { white-space: nowrap; }
.equal { color: var(--good); } .different { color: var(--bad); } .unchecked { color: var(--faint); }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--rule); }
tr.failed td { background: var(--tint); } .parts ul { margin: 0; padding-left: 1rem; }
.sides th { width: 7rem; font-weight: 400; color: var(--faint); } .sides thead th { font-weight: 600; color: var(--ink); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; margin: 1rem 0; }
dt { color: var(--faint); } dd { margin: 0; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: .8rem; }
.card { display: flex; gap: .8rem; background: var(--card); border: 1px solid var(--rule); border-radius: .5rem;
  padding: .7rem; margin: 0; }
.card img { width: 96px; height: 96px; object-fit: contain; flex: none; border-radius: .25rem; }
.card div { min-width: 0; flex: 1; } .card figcaption { color: var(--faint); font-size: .85rem; }
.said { font-size: .9rem; line-height: 1.3; margin-top: .35rem; } .said b { font-weight: 600; }
.bar { display: flex; align-items: center; gap: .4rem; font-size: .75rem; line-height: 1.15; height: .8rem;
  font-variant-numeric: tabular-nums; }
.bar i { display: block; height: .5rem; min-width: 1px; border-radius: 2px; background: var(--line); }
.bar span { flex: 1; } .bar em { font-style: normal; width: 3.4rem; text-align: right; }
.bar + .bar i, .key .two { background: var(--other); }
.key i { display: inline-block; width: .8rem; height: .6rem; border-radius: 2px; background: var(--line); margin-left: .6rem; }
.plot { margin: 0; } .plot figcaption { color: var(--faint); font-size: .9rem; }
.frame { padding: 14px 10px 0 3.6rem; touch-action: pan-y; cursor: crosshair; }
.frame > svg { width: 100%; height: 345px; display: block; } svg { overflow: visible; }
svg text { font-size: 12px; fill: var(--faint); } .grid { stroke: var(--rule); }
.limit { stroke: var(--bad); stroke-dasharray: 6 4; } .atol { color: var(--bad); white-space: nowrap; }
.line { stroke: var(--line); stroke-width: 2; } .dot { fill: var(--line); } .bad { fill: var(--bad); }
circle { outline-offset: 3px; } .near circle { stroke: var(--ink); stroke-width: 2.5; } .near text { fill: var(--ink); }
.plot output { display: block; min-height: 3em; padding: .2rem .6rem; background: var(--card); border-radius: .25rem; }
.taps th, .taps td { text-align: right; } .taps :is(th, td):first-child { text-align: left; }
@media (min-width: 60.01rem) { .taps td + td, .taps th + th { white-space: nowrap; } }
.taps small { display: block; color: var(--bad); }
th button { all: unset; cursor: pointer; font-weight: 600; } th button:focus-visible { outline: 2px solid; }
th button::after { content: " ↕"; color: var(--faint); }
th[aria-sort=ascending] button::after { content: " ↑"; } th[aria-sort=descending] button::after { content: " ↓"; }
@media screen and (max-width: 60rem) { .taps, .taps tbody { display: block; }
  .taps thead tr { display: flex; flex-wrap: wrap; gap: .2rem .8rem; } .taps thead th { border: 0; padding: 0; }
  .taps tbody tr { display: grid; grid-template-columns: 1fr 1fr; padding: .4rem 0;
  border-bottom: 1px solid var(--rule); } .taps tbody td { border: 0; text-align: left; padding: 0 .6rem; }
  .taps td:first-child { grid-column: 1 / -1; font-weight: 600; }
  .taps td[data-name]::before { content: attr(data-name) " "; color: var(--faint); } }
@media (max-width: 45rem) { .parts thead { display: none; } .parts tr { display: block; padding: .4rem 0;
  border-bottom: 1px solid var(--rule); } .parts td { display: block; border: 0; padding: 0 .6rem; }
  .parts td:first-child { font-weight: 600; } .parts td:empty { display: none; }
  .parts td[data-name]::before { content: attr(data-name) " "; color: var(--faint); }
  dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .4rem; } .sides th { width: 5rem; }
  .sides :is(th, td) { padding: .25rem .3rem; } .roomy { display: none; } }
@media print { body { margin: 0; max-width: none; font-size: 10pt; } .plot output, .json, th button::after { display: none; }
  .plot, .card, tr { break-inside: avoid; } h2 { break-after: avoid; } * { print-color-adjust: exact; }
  .taps { font-size: 8pt; } }
"""
# Shows the figures of the point nearest to the mouse or finger. Sorts the table by the head that is pressed, and reverses the
# order when it is pressed again.
SCRIPT = """
document.querySelectorAll(".plot").forEach(plot => {
  const points = [...plot.querySelectorAll(".point")], said = plot.querySelector("output");
  const middle = point => { const box = point.querySelector("circle").getBoundingClientRect(); return box.left + box.width / 2; };
  const show = point => {
    points.forEach(other => other.classList.toggle("near", other === point));
    said.textContent = point.querySelector("title").textContent;
  };
  const follow = event => show(points.reduce((best, point) =>
    Math.abs(middle(point) - event.clientX) < Math.abs(middle(best) - event.clientX) ? point : best));
  const frame = plot.querySelector(".frame");
  ["pointermove", "pointerdown"].forEach(name => frame.addEventListener(name, follow));
  points.forEach(point => point.addEventListener("focusin", () => show(point)));
});
document.querySelectorAll(".taps").forEach(table => {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    const key = row => Number(row.cells[column].dataset.key);
    heads.forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    body.append(...[...body.rows].sort((a, b) => (key(a) - key(b)) * (down ? -1 : 1)));
  }));
});
"""
# Nothing is fetched, and no script runs but this one.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-"
    + base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    + "'"
)
