"""The documents tell the truth: what they name exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)")
CODE = re.compile(r"`([^`\n]+)`")


def known_tests() -> set[str]:
    pattern = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
    return {name for path in (ROOT / "tests").rglob("test_*.py") for name in pattern.findall(path.read_text())}


def test_every_test_that_the_specification_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "SPECIFICATION.md").read_text()))
    assert named
    assert named - known_tests() == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        if not re.match(r"[a-z+]+:", target):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_folder_that_architecture_names_exists() -> None:
    for name in CODE.findall((ROOT / "ARCHITECTURE.md").read_text()):
        if re.fullmatch(r"(libs|services|docs|deploy|tests)(/[\w.*-]+)+/?", name):
            assert list(ROOT.glob(name.rstrip("/"))), name


def test_what_is_read_but_not_served_is_named_as_missing() -> None:
    """The keys of which intake warns stand in the manual and in the change log."""
    source = (ROOT / "services/intake/leveret_intake/unserved.py").read_text()
    keys = set(re.findall(r'_warning\("(\w+)"', source))
    manual = (ROOT / "docs/manifest.md").read_text().partition("## Not done yet")[2]
    assert keys <= set(CODE.findall(manual.replace(": true", "")))
    assert keys <= set(CODE.findall((ROOT / "CHANGELOG.md").read_text().partition("Not there yet:")[2]))


def test_the_manual_tells_of_every_configuration_key() -> None:
    """The page is made from the models; a key without a description is no help to anybody."""
    made = [sys.executable, "tools/configuration-page", "--check", "docs/configuration.md"]
    checked = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    assert not re.findall(r"^\| `.*\|  \|$", (ROOT / "docs/configuration.md").read_text(), re.MULTILINE)


def test_the_manual_tells_of_every_metric_and_of_no_other() -> None:
    runtime = ROOT / "libs/runtime/leveret_runtime"
    sources = [runtime / "metrics.py", runtime / "outbox.py", *ROOT.glob("services/*/leveret_*/metrics.py")]
    served = {name for path in sources for name in re.findall(r'"(leveret_\w+)"', path.read_text())}
    manual = (ROOT / "docs/metrics.md").read_text()
    told = {re.sub(r"_total$", "", name) for name in re.findall(r"`(leveret_\w+)", manual)}
    assert len(served) > 30
    assert told == served
