"""Tables as LaTeX: the CSV's cells in percent, escaped, intervals behind their number."""

from pipelines.reporting.latex import latex_table
from pipelines.storage.failures import csv_text


def test_numbers_are_rounded_and_names_escaped() -> None:
    table = csv_text(
        ["class", "support", "top1", "top1_low", "top1_high", "f1", "p_value"],
        [
            [r"50% \of_a ~{b}&", 16, "0.562500", "0.332100", "0.769000", "", "0.0123457"],
            ["=1+1", 2, "1.000000", "0.342400", "1.000000", "-0.050000", "1e-07"],
        ],
    )
    assert latex_table(table, "a\nb").splitlines() == [
        "% a\ufffdb",
        r"% \usepackage{booktabs}",
        r"\begin{tabular}{lrrrr}",
        r"\toprule",
        r"class & support & top1 (\%) & f1 (\%) & p\_value \\",
        r"\midrule",
        r"50\% \textbackslash{}of\_a \textasciitilde{}\{b\}\& & 16 & 56.3 (33.2--76.9) & -- & $0.012$ \\",
        r"=1+1 & 2 & 100.0 (34.2--100.0) & -5.0 & $< 0.0001$ \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_a_class_is_a_column_under_its_own_name_also_where_that_ends_as_an_interval_does() -> None:
    table = csv_text(["class", "-kick", "kick", "kick_low", "kick_high"], [["kick_low", 0, 1, 2, 3]])
    assert r"class & -kick & kick & kick\_low & kick\_high \\" in latex_table(table, "", intervals=False)
    assert r"kick\_low & 0 & 1 & 2 & 3 \\" in latex_table(table, "", intervals=False)
    assert r"kick\_low & 0 & 1 (" not in latex_table(table, "", intervals=False)
    alone = csv_text(["stream", "idt_low"], [["fused", 2]])
    assert r"stream & idt\_low \\" in latex_table(alone, "")
