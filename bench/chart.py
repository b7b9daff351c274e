"""Draws a result of `make bench` as docs/bench.svg, for the README.

    python -m bench.chart [build/bench/result.json] [docs/bench.svg]

One panel for each figure, one bar for each peer, its median beside it. Text and bars follow the
reader's colour scheme, and the background is the page's own.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from bench.report import METRICS
from bench.servers import CACHE, ROOT

PANELS = (
    "cold_start_ms",
    "first_token_512_ms",
    "decode_1_tok_s",
    "decode_8_tok_s",
    "first_token_38_ms",
    "peak_rss_mb",
)
COLUMNS = 2
PANEL_WIDTH, LABEL_WIDTH, VALUE_WIDTH = 440, 144, 62
BAR, GAP, TITLE, MARGIN = 16, 6, 30, 18
STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 13px }
  .note { fill: #59636e }
  .ours { fill: #d9480f }
  .theirs { fill: #8c959f }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .note { fill: #9198a1 }
    .ours { fill: #ff8c42 }
    .theirs { fill: #656c76 }
  }"""


def chart(document: Mapping[str, Any]) -> str:
    """The whole SVG. A peer without a figure has no bar in that panel."""
    height = TITLE + MARGIN + len(document["peers"]) * (BAR + GAP)
    rows = -(-len(PANELS) // COLUMNS)
    width, total = COLUMNS * PANEL_WIDTH, rows * height + MARGIN
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {total}" '
            f'width="{width}" height="{total}" role="img" aria-label="Kindling beside its peers">'
        ),
        f"<style>{STYLE}\n</style>",
    ]
    for number, metric in enumerate(PANELS):
        x, y = number % COLUMNS * PANEL_WIDTH, number // COLUMNS * height
        parts += [f'<g transform="translate({x} {y})">', *_panel(document, metric), "</g>"]
    return "\n".join([*parts, _caption(document, total), "</svg>\n"])


def _panel(document: Mapping[str, Any], metric: str) -> Iterator[str]:
    medians = {
        name: peer["figures"][metric]["median"]
        for name, peer in document["peers"].items()
        if metric in peer["figures"]
    }
    row = METRICS[metric]
    better = "more" if row.more_is_better else "less"
    yield (
        f'<text class="title" x="0" y="{TITLE - 10}">{escape(row.title)}, {row.unit} '
        f'<tspan class="note" font-weight="400">({better} is better)</tspan></text>'
    )
    room = PANEL_WIDTH - LABEL_WIDTH - VALUE_WIDTH
    for number, (name, value) in enumerate(medians.items()):
        y = TITLE + number * (BAR + GAP)
        length = max(1.0, room * value / max(medians.values()))
        kind = "ours" if name.startswith("kindling") else "theirs"
        yield f'<text x="{LABEL_WIDTH - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>'
        yield (
            f'<rect class="{kind}" x="{LABEL_WIDTH}" y="{y}" width="{length:.1f}" '
            f'height="{BAR}" rx="2"/>'
        )
        yield f'<text x="{LABEL_WIDTH + length + 6:.1f}" y="{y + 12}">{value:,.0f}</text>'


def _caption(document: Mapping[str, Any], total: int) -> str:
    machine = document["machine"]
    words = f"{machine['cpu']}, {machine['threads']} threads, {document['date'][:10]}, medians"
    return f'<text class="note" x="0" y="{total - 4}">{escape(words)}</text>'


def main(result: str = str(CACHE / "result.json"), to: str = str(ROOT / "docs/bench.svg")) -> None:
    """Reads one file, writes the other."""
    Path(to).write_text(chart(json.loads(Path(result).read_text())))


if __name__ == "__main__":
    main(*sys.argv[1:])
