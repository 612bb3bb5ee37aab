"""A comparison as a table: aligned text, Markdown, LaTeX, JSON.

A cell holds the mean and, in brackets, the difference to another run and its corrected
p. Markdown and LaTeX have the best mean of a column in bold, as printed: with four
decimals.
"""

import json
from dataclasses import asdict

from dense_hn.evaluate.significance import Comparison

# Rows of systems that nothing was trained for.
UNTRAINED = {"bm25": "BM25", "base": "untrained"}
# Characters that Markdown and LaTeX would not print as they are.
MARKDOWN = str.maketrans({c: f"\\{c}" for c in r"\`*_[]<>|~&"})
LATEX = str.maketrans(
    {c: f"\\{c}" for c in "&%$#_{}"}
    | {c: f"${c}$" for c in "<>|"}
    # After the end of a line, \\, they would be its arguments.
    | {c: f"{{{c}}}" for c in "[*"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
    | {"^": r"\textasciicircum{}"}
)


def text(comparison: Comparison) -> str:
    """Columns aligned by blanks; no bold."""
    width = max(len(row.name) for row in comparison.rows)
    lines = [
        f"{name:{width}}" + "".join(f"  {cell:<24}" for cell in cells)
        for name, *cells in _cells(comparison, {}, "{}", " ({:+.4f} {})")
    ]
    return "\n".join([*(line.rstrip() for line in lines), note(comparison)])


def markdown(comparison: Comparison) -> str:
    """A pipe table."""
    head, *rows = _cells(comparison, MARKDOWN, "**{}**", " ({:+.4f} {})")
    lines = [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join([*lines, "", note(comparison).translate(MARKDOWN)])


def latex(comparison: Comparison) -> str:
    r"""A tabular for the package booktabs, and the note as a paragraph below it."""
    bold, bracket = r"\textbf{{{}}}", " (${:+.4f}$ ${}$)"
    head, *rows = (
        " & ".join(cells) + r" \\" for cells in _cells(comparison, LATEX, bold, bracket)
    )
    columns = "l" * (1 + len(comparison.rows[0].cells))
    return "\n".join(
        [
            rf"\begin{{tabular}}{{{columns}}}",
            *(r"\toprule", head, r"\midrule", *rows, r"\bottomrule"),
            *(r"\end{tabular}", "", note(comparison).translate(LATEX)),
        ]
    )


def as_json(comparison: Comparison) -> str:
    """All of the comparison: full precision, p as the test gives it and corrected."""
    return json.dumps(asdict(comparison), indent=2)


def note(comparison: Comparison) -> str:
    """How many topics there are, and what stands in the brackets."""
    topics = f"{comparison.topics} topics."
    if not comparison.comparisons:
        return topics
    other = comparison.baseline or "the row above"
    return (
        f"{topics} In brackets: difference to {other}, and p of a {comparison.test}, "
        f"Holm-corrected; comparisons per measure: {comparison.comparisons}."
    )


def _cells(
    comparison: Comparison, escapes: dict[int, str], bold: str, bracket: str
) -> list[list[str]]:
    """The head, and a line a run, as printed.

    Args:
        comparison: what is printed.
        escapes: of the runs' names.
        bold: template of a column's best mean.
        bracket: template of difference and p.
    """
    measures = [*comparison.rows[0].cells]
    means = [
        [f"{cell.mean:.4f}" for cell in row.cells.values()] for row in comparison.rows
    ]
    best = [max(column) for column in zip(*means, strict=True)]
    lines = [["", *measures]]
    for row, printed in zip(comparison.rows, means, strict=True):
        line = [row.name.translate(escapes)]
        for cell, mean, top in zip(row.cells.values(), printed, best, strict=True):
            line.append(bold.format(mean) if mean == top else mean)
            if cell.difference is not None:
                line[-1] += bracket.format(cell.difference, chance(cell.p_holm))
        lines.append(line)
    return lines


def chance(p: float) -> str:
    """A p as tables print it: three decimals, or that it is below them."""
    return "p<.001" if p < 0.001 else f"p={p:.3f}".replace("0.", ".")


FORMATS = {"text": text, "markdown": markdown, "latex": latex, "json": as_json}
