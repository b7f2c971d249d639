"""What the code and the pages cite is there: pages of docs/, their numbered sections, their links, and tests."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = {page.name: page for page in (ROOT / "docs").glob("*.md")}
ROOT_PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
CITATION = re.compile(r"\b([\w-]+\.md)(?: (\d+(?:\.\d+)?)\b)?")
NAMED_TEST = re.compile(r"`(tests/[\w/.]*|(?:\w+/)*test_\w+\.py|test_\w+(?:\.\.\.)?|\.\.\._\w+(?:\.\.\.)?)`")


def sources() -> Iterator[Path]:
    for folder in ("pipelines", "stres_cli", "tests", "benchmarks"):
        yield from (path for path in (ROOT / folder).rglob("*.py") if path != Path(__file__))


def headings(page: Path) -> set[str]:
    """The numbers that begin a heading (`## 2 Network`) or a paragraph (`**2.1 Motion into appearance.**`)."""
    return set(re.findall(r"^(?:#+ |\*\*)(\d+(?:\.\d+)?)\b", page.read_text(), re.MULTILINE))


def test_every_page_and_section_that_the_code_cites_exists():
    wrong = []
    for path in sources():
        for name, number in CITATION.findall(path.read_text()):
            if name in ROOT_PAGES or (name not in PAGES and name != "paper.md" and not number):
                continue  # a file name of the test's own, not a citation
            if name not in PAGES or (number and number not in headings(PAGES[name])):
                wrong.append(f"{path.relative_to(ROOT)}: {name} {number}")
    assert not wrong


def test_the_paper_is_cited_all_over_the_code():
    """So that the rule above cannot hold for want of citations."""
    cited = {number for path in sources() for name, number in CITATION.findall(path.read_text()) if name == "paper.md"}
    assert {"1.2", "2.1", "2.2", "2.3", "2.4", "2.6", "3.1", "3.2", "3.3", "4.1"} <= cited


@pytest.mark.parametrize(
    "citation",
    [r'PAPER(\.md| \d|, (Inputs|Network|Training|Testing)| ")', r"\bDESIGN\b", r"\bTVL1\.md\b", r"\bSTYLE\.md\b"],
)
def test_nothing_cites_a_document_that_is_not_in_the_repository(citation):
    pages = (*PAGES.values(), *(ROOT / name for name in ROOT_PAGES))
    wrong = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in (*sources(), *pages)
        for line in path.read_text().splitlines()
        if re.search(citation, line)
    ]
    assert not wrong


def test_every_test_that_a_page_names_is_there():
    """By its file (`room/test_x.py`), by its name, or by the beginning or end of its name (`test_x_...`, `..._x`)."""
    tests = ROOT / "tests"
    defined = re.findall(r"^def (test_\w+)", "\n".join(f.read_text() for f in tests.rglob("test_*.py")), re.MULTILINE)
    wrong, named = [], Counter()
    for page in PAGES.values():
        for quoted in NAMED_TEST.findall(page.read_text()):
            named[page.name] += 1
            if "/" in quoted or quoted.endswith(".py"):
                found = (tests / quoted.removeprefix("tests/")).exists()
            else:
                name = re.compile(re.escape(quoted).replace(re.escape("..."), r"\w*"))
                found = any(name.fullmatch(test) for test in defined)
            if not found:
                wrong.append(f"{page.name}: {quoted}")
    assert not wrong
    assert named["recipe.md"] > 30
    assert named["reliability.md"] > 50


def test_every_link_between_pages_leads_to_a_page_and_a_heading():
    wrong = []
    for page in (*PAGES.values(), ROOT / "README.md", ROOT / "CONTRIBUTING.md"):
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
            file, _, anchor = target.partition("#")
            other = (page.parent / file).resolve() if file else page
            if not other.exists() or (anchor and anchor not in anchors(other)):
                wrong.append(f"{page.name}: {target}")
    assert not wrong


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
