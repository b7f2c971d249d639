"""The table of docs/recipe.md names tests that there are."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "recipe.md"


def test_every_test_that_the_page_names_is_there():
    page = PAGE.read_text(encoding="utf-8")
    defined = set(re.findall(r"^def (test_\w+)", "\n".join(f.read_text() for f in TESTS.rglob("test_*.py")), re.M))
    named = set(re.findall(r"`(test_\w+)`", page))
    assert len(named) > 30
    assert named - defined == set()
    assert all((TESTS / file).is_file() for file in re.findall(r"`(\w+/test_\w+\.py)`", page))
