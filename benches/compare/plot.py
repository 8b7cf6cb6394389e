"""A plot of CPU time per request, as SVG: a line a scenario, a dot a proxy, where 1 is the best of the others."""
import html
import math

from figures import best, ratio

COLOURS = {"portcullis": "#c2410c", "profiled": "#dc2626", "bare": "#78716c", "plain": "#f59e0b", "nginx": "#15803d", "haproxy": "#1d4ed8",
           "envoy": "#a21caf", "varnish": "#0e7490"}
LEFT, WIDTH, LINE, TOP = 340, 700, 24, 60
MARKS = (0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 8)


def svg(scenarios):
    rows = [(one["title"], one["slices"], best(one["slices"], "cpu_us")) for one in scenarios
            if all("cpu_us" in own[0] for own in one["slices"].values())]
    rows = [(title, {name: ratio(slices, name, beside, "cpu_us") for name in slices}) for title, slices, beside in rows if beside]
    if not rows:
        return ""
    least = min(low for _, dots in rows for low, _, _ in dots.values())
    most = max(high for _, dots in rows for _, _, high in dots.values())
    marks = [mark for mark in MARKS if least / 1.4 < mark < most * 1.4]
    least, most = min(least, marks[0]) / 1.05, max(most, marks[-1]) * 1.05
    across = lambda value: LEFT + WIDTH * math.log(max(value, least) / least) / math.log(most / least)
    height = TOP + LINE * len(rows) + 50
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 30} {height}" '
             'font-family="sans-serif" font-size="13">', '<rect width="100%" height="100%" fill="#ffffff"/>',
             text(10, 22, "CPU time per request beside the best of the others (1); bars are quartiles; left is better",
                  "start", "#1c1917", 'font-weight="bold"')]
    for place, (name, colour) in enumerate(COLOURS.items()):
        parts += [dot(LEFT + 10 + place * 88, 42, colour), text(LEFT + 20 + place * 88, 46, name, "start", "#1c1917")]
    bottom = TOP + LINE * len(rows)
    for mark in marks:
        parts += [line(across(mark), TOP, across(mark), bottom, "#1c1917" if mark == 1 else "#e7e5e4"),
                  text(across(mark), bottom + 18, f"{mark:g}", "middle", "#57534e")]
    for place, (title, dots) in enumerate(rows):
        y = TOP + LINE * place + LINE / 2
        parts.append(text(LEFT - 12, y + 4, title, "end", "#1c1917"))
        # Ours last, so that nothing hides it.
        for name in sorted(dots, key=lambda name: name in ("portcullis", "profiled")):
            low, middle, high = dots[name]
            parts += [line(across(low), y, across(high), y, COLOURS[name], 2), dot(across(middle), y, COLOURS[name])]
    return "\n".join([*parts, "</svg>", ""])


def line(x1, y1, x2, y2, colour, width=1):
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def dot(x, y, colour):
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>'


def text(x, y, words, anchor, colour, more=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" {more}>{html.escape(words)}</text>'
