"""The Markdown table of comparisons, and its place in the documentation."""

from pathlib import Path

from measure import OURS, PEERS, Comparison


BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"


def number(value: float) -> str:
    """A value with about three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def ratio(values: list[float] | None) -> str:
    """A median ratio, with the least and the greatest of the rounds if they differ from it."""
    if values is None:
        return "–"
    median, least, most = (f"{value:.2f}" for value in values)
    return median if median == least == most else f"{median} ({least}–{most})"


def share(comparison: Comparison, name: str) -> str:
    value = comparison.shares.get(name)
    return "" if value is None else f" ({100 * value:.0f} %)"


def markdown(comparisons: list[Comparison]) -> str:
    """A row for each comparison. Percentages are shares of what the last column names."""
    peers = list(dict.fromkeys([*PEERS, *(name for one in comparisons for name in one.ratios)]))
    columns = ("", "", "unit", OURS, *peers, *(f"{OURS} over {peer}" for peer in peers), "100 % is")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for one in comparisons:
        values = [
            number(one.values[name]) + share(one, name) if name in one.values else "–" for name in (OURS, *peers)
        ]
        unit = "GB/s" if one.share_of == "bandwidth" else "GFLOP/s"
        limit = f"{one.share_of}, {number(one.limit / 1e9)} {unit}" if one.shares else "–"
        cells = [one.section, one.case, one.unit, *values, *(ratio(one.ratios.get(peer)) for peer in peers), limit]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def insert(path: Path, content: str):
    """
    Replace what a file has between the markers.

    Raises:
        ValueError: if the file does not have both markers, each once and in order.
    """
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError(f"{path} needs the lines {BEGIN} and {END}, once each and in this order")
    path.write_text(f"{before}{BEGIN}\n\n{content}\n\n{END}{after}", encoding="utf-8")
