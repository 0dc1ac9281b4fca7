"""Draws the distances of samplers, which `tintype bench samplers --out FILE` writes, as docs/samplers.svg.

    python3 docs/plot_samplers.py samplers.json > docs/samplers.svg
"""

import json
import math
import sys

WIDTH, HEIGHT, LEFT, TOP, BOTTOM, LEGEND = 360, 300, 52, 30, 40, 96
COLOURS = ["#888888", "#c05800", "#0060b0", "#008060", "#9040a0", "#c00040"]


def panel(problem, left):
    """One problem: logarithms of both axes."""
    columns = problem["evaluations"]
    values = [v for row in problem["samplers"] for v in row["rms"]]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    x_low, x_high = math.log(columns[0]), math.log(columns[-1])

    def x(evaluations):
        return left + LEFT + (math.log(evaluations) - x_low) / (x_high - x_low) * (WIDTH - LEFT - 10)

    def y(rms):
        return TOP + (high - math.log10(rms)) / (high - low) * (HEIGHT - TOP - BOTTOM)

    yield f'<text x="{left + LEFT}" y="16" font-weight="bold">{problem["problem"]}</text>'
    for power in range(low, high + 1):
        at = y(10.0**power)
        yield f'<line x1="{left + LEFT}" x2="{left + WIDTH - 10}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>'
        yield f'<text x="{left + LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g}</text>'
    for evaluations in columns:
        at = x(evaluations)
        yield f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}" stroke="#eee"/>'
        yield f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{evaluations}</text>'
    middle = left + (LEFT + WIDTH) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">evaluations</text>'
    for row, colour in zip(problem["samplers"], COLOURS):
        points = " ".join(f"{x(n):.1f},{y(v):.1f}" for n, v in zip(columns, row["rms"]))
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>'


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        problems = json.load(file)["samplers"]
    width = WIDTH * len(problems) + LEGEND
    print(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {HEIGHT}" font-family="sans-serif" font-size="12">'
    )
    print(f'<rect width="{width}" height="{HEIGHT}" fill="white"/>')
    for i, problem in enumerate(problems):
        print("\n".join(panel(problem, i * WIDTH)))
    for i, (row, colour) in enumerate(zip(problems[0]["samplers"], COLOURS)):
        y = TOP + 18 * i
        print(f'<line x1="{width - LEGEND + 4}" x2="{width - LEGEND + 22}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
        print(f'<text x="{width - LEGEND + 28}" y="{y + 4}">{row["sampler"]}</text>')
    print("</svg>")


if __name__ == "__main__":
    main()
