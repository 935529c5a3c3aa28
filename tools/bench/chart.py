"""Bar charts as SVG, without a library: groups of bars, one bar a series, on a logarithmic axis."""
import html
import math

WIDTH = 960
LEFT, RIGHT, TOP, BOTTOM = 250, 70, 84, 30
BAR, BAR_GAP, GROUP_GAP = 13, 3, 16
COLOURS = ("#d1495b", "#f0a202", "#2e86ab", "#6a994e", "#7b4b94", "#5c677d", "#00798c", "#b08968")
TICKS_MAX = 12


def axis(values):
    """Powers of ten around all values, as exponents; below by enough that the smallest has a bar."""
    positive = [value for value in values if value > 0]
    low = math.floor(math.log10(min(positive)) - 0.3)
    return low, max(math.ceil(math.log10(max(positive))), low + 1)


def number(value):
    if value >= 10000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def text(x, y, content, anchor="start", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {extra}>{html.escape(content)}</text>'


def bar_chart(title, note, series, groups):
    """An SVG document. `groups` is [(name, {series: value})]; a series that has no value there has no
    bar, and "-" says so. A line marks 1, which is what ratios are read against."""
    values = [value for _, row in groups for value in row.values()]
    low, high = axis(values + [1])
    plot = WIDTH - LEFT - RIGHT

    def x_of(value):
        return LEFT + plot * (math.log10(max(value, 10.0 ** low)) - low) / (high - low)

    group_height = len(series) * (BAR + BAR_GAP) + GROUP_GAP
    height = TOP + group_height * len(groups) + BOTTOM
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
           f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
           text(16, 24, title, extra='font-size="17" font-weight="bold"'),
           text(16, 42, note, extra='fill="#555"')]
    for index, name in enumerate(series):
        x = 16 + index * (WIDTH - 32) / len(series)
        out.append(f'<rect x="{x:.1f}" y="54" width="11" height="11" fill="{COLOURS[index % len(COLOURS)]}"/>')
        out.append(text(x + 15, 64, name))
    step = max(1, math.ceil((high - low) / TICKS_MAX))
    for exponent in range(low, high + 1, step):
        x = x_of(10.0 ** exponent)
        out.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - BOTTOM}" stroke="#ddd"/>')
        out.append(text(x, height - 12, number(10.0 ** exponent), "middle", 'fill="#555"'))
    one = x_of(1)
    out.append(f'<line x1="{one:.1f}" y1="{TOP - 8}" x2="{one:.1f}" y2="{height - BOTTOM}" stroke="#333" '
               'stroke-dasharray="4 3"/>')
    y = TOP
    for name, row in groups:
        out.append(text(LEFT - 10, y + (group_height - GROUP_GAP) / 2 + 4, name, "end"))
        for index, one_series in enumerate(series):
            if one_series in row:
                end = x_of(row[one_series])
                out.append(f'<rect x="{LEFT}" y="{y}" width="{max(end - LEFT, 1):.1f}" height="{BAR}" '
                           f'fill="{COLOURS[index % len(COLOURS)]}"/>')
                out.append(text(max(end, LEFT + 1) + 4, y + BAR - 2, number(row[one_series]), extra='font-size="11"'))
            else:
                out.append(text(LEFT + 4, y + BAR - 2, "-", extra='font-size="11" fill="#999"'))
            y += BAR + BAR_GAP
        y += GROUP_GAP
    out.append("</svg>")
    return "\n".join(out) + "\n"
