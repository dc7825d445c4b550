"""The documentation names what is there: files, and targets of links."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ARCHITECTURE = ROOT / "docs" / "architecture.md"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
# What builds leave behind in the source folders.
BUILT = {".so", ".pyc"}


def tree() -> list[str]:
    """The paths of the tree in the architecture page, folders with a slash at their end."""
    block = re.search(r"^```tree\n(.*?)^```$", ARCHITECTURE.read_text(), re.MULTILINE | re.DOTALL)
    assert block, "the page has a block of the tree"
    paths = []
    folders: list[str] = []
    for line in block[1].splitlines():
        depth, rest = divmod(len(line) - len(line.lstrip()), 2)
        assert rest == 0, f"indented by two: {line!r}"
        name = line.split()[0]
        path = "".join(folders[:depth]) + name
        paths.append(path)
        folders[depth:] = [name]
    return paths


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_path_of_the_tree_exists():
    paths = tree()
    assert len(paths) == len(set(paths)) > 50
    wrong = [path for path in paths if (ROOT / path).is_dir() != path.endswith("/") or not (ROOT / path).exists()]
    assert wrong == []


def test_every_source_file_is_in_the_tree():
    folders = [*ROOT.glob("crates/*/src"), ROOT / "python" / "hotloop"]
    assert len(folders) > 3
    files = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and path.suffix not in BUILT
    }
    assert files - set(tree()) == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = page.parent / name if name else page
        if not linked.exists() or (anchor and anchor not in anchors(linked)):
            broken.append(target)
    assert broken == []


def test_the_readme_leads_to_every_page():
    readme = (ROOT / "README.md").read_text()
    missing = [page.name for page in PAGES[1:] if f"({page.relative_to(ROOT).as_posix()})" not in readme]
    assert missing == []


def table_rows(page: Path) -> list[list[str]]:
    """The cells of each row of the tables of a page, without heads and rules."""
    rows = re.findall(r"^\|(.*)\|$", page.read_text(), re.MULTILINE)
    cells = [[cell.strip() for cell in row.split(" |")] for row in rows]
    return [row for row in cells if not row[0].startswith("---") and row[0] != "what goes wrong"]


def known_tests() -> set[str]:
    """Every test there is, as pages name it."""
    return {
        f"{path.name}::{node.name}"
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def test_every_test_named_beside_a_difference_exists():
    page = (ROOT / "docs" / "differences.md").read_text()
    named = set(re.findall(r"`(test_\S+?::\S+?)`", page))
    assert len(named) > 50
    assert named - known_tests() == set()


def test_every_integration_has_a_test_that_exists():
    rows = [row for row in table_rows(ROOT / "docs" / "integrations.md") if row[0]]
    assert len(rows) > 15
    named = [re.findall(r"`(\S+?::\S+?)`", tests) for _, _, tests in rows]
    assert all(named)
    assert {name for names in named for name in names} - known_tests() == set()


def test_every_test_named_beside_a_trap_exists():
    known = known_tests()
    named = set()
    rows = table_rows(ROOT / "docs" / "traps.md")
    assert len(rows) > 80
    for what, _, tests, state in rows:
        assert re.match(r"(covered|stock's|elsewhere: .+|open(: .+)?)$", state), what
        found = re.findall(r"`(\S+?::\S+?)`", tests)
        assert bool(found) is state.startswith(("covered", "stock's")), what
        named |= set(found)
    assert named - known == set()
