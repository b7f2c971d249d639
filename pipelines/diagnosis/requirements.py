"""Versions as packages ask for them."""

import re
from dataclasses import dataclass

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)\s*(?:\[[^\]]*\])?\s*\(?(?P<wanted>[^;()]*)\)?\s*(?:;(?P<marker>.*))?"
)
_CLAUSE = re.compile(r"(?P<relation>>=|<=|==|!=|<|>)\s*(?P<version>[0-9][0-9A-Za-z.+!*-]*)")
_EXTRA = re.compile(r"""extra\s*==\s*["'](?P<extra>[^"']+)["']""")


@dataclass(frozen=True)
class Requirement:
    """One requirement: `torch>=2.11` or `onnx (>=1.17) ; extra == "export"`."""

    name: str
    wanted: str
    extra: str = ""

    def accepts(self, version: str) -> bool:
        """Whether this version will do. Clauses with patterns (`==2.*`) hold."""
        return all(
            _holds(clause["relation"], _numbers(version), _numbers(clause["version"]))
            for clause in _CLAUSE.finditer(self.wanted)
            if "*" not in clause["version"]
        )


def read_requirement(text: str) -> Requirement:
    """Raises `ValueError` for what is none."""
    found = _REQUIREMENT.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no requirement")
    extra = _EXTRA.search(found["marker"] or "")
    return Requirement(found["name"], found["wanted"].strip(), extra["extra"] if extra else "")


def _numbers(version: str) -> list[int]:
    """`2.11.0+cu130` -> [2, 11, 0]."""
    return [int(part) for part in re.findall(r"\d+", re.split(r"[+a-zA-Z]", version)[0])]


def _holds(relation: str, found: list[int], wanted: list[int]) -> bool:
    length = max(len(found), len(wanted))
    a, b = (numbers + [0] * (length - len(numbers)) for numbers in (found, wanted))
    return {">=": a >= b, "<=": a <= b, "==": a == b, "!=": a != b, "<": a < b, ">": a > b}[relation]
