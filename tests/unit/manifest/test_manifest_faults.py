"""Faults of every kind, put into sound manifests, 1 to 5 at a time: exactly those come back, each in its place."""

import csv
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leveret_proto.manifest import read
from leveret_proto.manifest.loaders import PythonLoader

#: A sound manifest in pieces: each key's lines. A fault replaces or adds lines of one piece.
SOUND: dict[str, list[str]] = {
    "image": ["image: debian/stable"],
    "arch": ["arch: amd64"],
    "packages": ["packages:", "  - make", "  - gcc"],
    "repositories": ["repositories:", "  extra: https://example.org/repo stable main"],
    "sources": ["sources:", "- https://git.sr.ht/~user/project#v1", "- lib::hg+https://hg.sr.ht/~user/lib"],
    "environment": ["environment:", "  CFLAGS: -O2", "  LIST: [a, b]", "  N: 3"],
    "secrets": ["secrets:", "- 0818d60d-b587-4d4e-81d8-dc15072ccb97", "- deploy key"],
    "tasks": [
        "tasks:",
        "- setup: |",
        "    cd project",
        "    ./configure: [{",
        "- build: make",
        "- check: |",
        "    make check",
    ],
    "triggers": ["triggers:", "- action: email", "  condition: failure", "  to: Some One <a@example.org>"],
    "artifacts": ["artifacts:", "- project/a.tar.gz", "- project/b.tar.gz"],
    "shell": ["shell: false"],
    "oauth": ["oauth: pages.sr.ht/PAGES:RW"],
    "leveret": ["leveret:", "  requires: {kvm: true, tags: [disk=large]}", "  time_limit: 90m"],
}


@dataclass(frozen=True)
class Injected:
    """A fault: the piece it goes into, the line (0-based in that piece) it replaces, its text, and the column it is in.

    `at` moves the expected line where the text has several.
    """

    piece: str
    line: int
    text: str
    column: int
    at: int = 0


FAULTS = [
    # values of the wrong kind
    Injected("image", 0, "image:", 1),
    Injected("image", 0, "image: [debian]", 8),
    Injected("image", 0, "image: {a: b}", 8),
    Injected("arch", 0, "arch: [x86_64]", 7),
    Injected("packages", 1, "  - name: make", 5),
    Injected("packages", 2, "  - [make]", 5),
    Injected("repositories", 1, "  extra: [a]", 10),
    Injected("sources", 1, "- url: https://example.org", 3),
    Injected("environment", 1, "  CFLAGS: {a: b}", 11),
    Injected("environment", 2, "  LIST: [a, [b]]", 13),
    Injected("secrets", 2, "- abc", 3),
    Injected("secrets", 1, "- " + "x" * 512, 3),
    Injected("shell", 0, "shell: sometimes", 8),
    Injected("shell", 0, 'shell: "true"', 8),
    Injected("oauth", 0, "oauth: [a]", 8),
    # tasks
    Injected("tasks", 4, "- Build: make", 3),
    Injected("tasks", 4, "- setup: make", 3),
    Injected("tasks", 4, "- make", 3),
    Injected("tasks", 4, "- {a: b, c: d}", 3),
    Injected("tasks", 4, "-", 2),
    Injected("tasks", 4, "- build: [make]", 10),
    Injected("tasks", 4, "- build: make\n  other: make", 3),
    # triggers
    Injected("triggers", 1, "- action: mail", 11),
    Injected("triggers", 2, "  condition: failed", 14),
    Injected("triggers", 3, "  cc:", 3, at=-2),
    Injected("triggers", 3, "  to: [a@b]", 7),
    Injected("triggers", 3, "  to: a@b\n- nothing", 3, at=1),
    # artifacts
    Injected("artifacts", 2, "- other/a.tar.gz", 3),
    Injected("artifacts", 2, "- ''", 3),
    Injected("artifacts", 1, "- a: b", 3),
    # our own key
    Injected("leveret", 1, "  require: {}", 3),
    Injected("leveret", 1, "  requires: {kvm: perhaps}", 19),
    Injected("leveret", 1, "  requires: {cpus: 4}", 14),
    Injected("leveret", 2, "  time_limit: soon", 15),
    Injected("leveret", 2, "  artifacts_on: failure", 17),
    # aliases and tags
    Injected("oauth", 0, "oauth: *nothing", 8),
    Injected("packages", 1, "  - *nothing", 5),
    Injected("arch", 0, "arch: !!int x86", 7),
    # YAML's syntax
    Injected("packages", 1, "  - 'make", 5),
    Injected("packages", 1, "  - [make", 5),
    Injected("packages", 1, "  - {make", 5),
    Injected("packages", 1, "  - @make", 5),
    Injected("packages", 1, "  - 'make' it", 12),
    Injected("packages", 1, "  - a: b: c", 9),
    Injected("packages", 1, "\t- make", 1),
    Injected("packages", 2, '  - "\\q"', 5),
    Injected("repositories", 1, "  extra https://example.org\n  more: x", 3),
    Injected("environment", 1, "  CFLAGS: %x", 11),
    Injected("environment", 3, "  N: 3\n   M: 4", 5, at=1),
    Injected("environment", 3, "  N: 3\n M: 4", 2, at=1),
    Injected("tasks", 4, "  - build: make", 3),
    Injected("tasks", 4, " - build: make", 2),
    Injected("tasks", 4, "- build: |\n  make", 3, at=1),
    Injected("tasks", 4, "- build: |make", 11),
    Injected("tasks", 4, "- build |\n    make\n", 3),
    Injected("secrets", 1, "- !<x y", 3),
    Injected("oauth", 0, "oauth pages", 1),
    Injected("oauth", 0, "oauth: `pages`", 8),
    Injected("oauth", 0, "oauth: a\x07", 9),
    Injected("image", 0, "image debian", 1),
    Injected("image", 0, "image: 'debian", 8),
    Injected("shell", 0, "shell: *", 8),
]


def compose(faults: list[Injected]) -> tuple[str, list[tuple[int, int]]]:
    """Give the manifest with these faults, and line and column of each."""
    lines: list[str] = []
    places = []
    for piece, sound in SOUND.items():
        for number, line in enumerate(sound):
            injected = [fault for fault in faults if fault.piece == piece and fault.line == number]
            if injected:
                places.append((len(lines) + 1 + injected[0].at, injected[0].column))
                lines += injected[0].text.split("\n")
            else:
                lines.append(line)
    return "\n".join(lines) + "\n", sorted(places)


def found(text: str) -> list[tuple[int, int]]:
    return sorted((fault.line, fault.column) for fault in read(text).faults)


def test_the_sound_manifest_is_sound() -> None:
    assert read(compose([])[0]).diagnostics == []


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: repr(fault.text[:40]))
def test_each_fault_alone_comes_back_in_its_place(fault: Injected) -> None:
    text, places = compose([fault])
    assert found(text) == places
    assert read(text) == read(text, loader=PythonLoader)


def of_different_pieces(faults: list[Injected]) -> list[Injected]:
    """At most one fault a piece, and one with a quote in all: a second one closes what the first left open."""
    apart = {fault.piece: fault for fault in faults}.values()
    return list({fault.piece if "'" not in fault.text else "quoted": fault for fault in apart}.values())


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(FAULTS), min_size=1, max_size=5).map(of_different_pieces))
def test_exactly_the_injected_faults_come_back(faults: list[Injected]) -> None:
    text, places = compose(faults)
    assert found(text) == places
    assert all(fault.message for fault in read(text).faults)


# -- the same with real manifests: faults that can be put under any of them

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"


def accepted() -> list[str]:
    index = CORPUS / "index.tsv"
    if not index.is_file():
        return []
    with index.open(encoding="utf-8", newline="") as lines:
        names = [row["file"] for row in csv.DictReader(lines, delimiter="\t") if row["verdict"] == "accept"]
    texts = [(CORPUS / "manifests" / name).read_text(encoding="utf-8") for name in names]
    return [text for text in texts if len(text) < 8000]


ACCEPTED = accepted()
#: Lines that are a fault at the end of any manifest, by the key they take, and the column of the fault.
APPENDED: dict[str, list[tuple[str, int]]] = {
    "arch": [("arch: [a]", 7), ("arch: {a: b}", 7)],
    "repositories": [("repositories: [a]", 15), ("repositories: {a: [b]}", 19)],
    "shell": [("shell: 3", 8), ("shell: 'yes", 8)],
    "artifacts": [("artifacts: [a/x, b/x]", 18), ("artifacts: ['']", 13), ("artifacts: a", 12)],
    "oauth": [("oauth: [a]", 8), ("oauth: @a", 8), ("oauth: *a", 8), ("oauth", 1), ("oauth: {a", 8)],
    "leveret": [("leveret: {a: b}", 11), ("leveret: {time_limit: x}", 23), ("leveret: a: b", 11)],
}


def append(text: str, lines: list[tuple[str, int]]) -> tuple[str, list[tuple[int, int]]]:
    text = text if text.endswith("\n") else text + "\n"
    first = text.count("\n") + 1
    places = [(first + number, column) for number, (_, column) in enumerate(lines)]
    return text + "".join(line + "\n" for line, _ in lines), places


@pytest.mark.skipif(not ACCEPTED, reason="the corpus of real manifests does not stand beside the project")
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_exactly_the_faults_put_into_real_manifests_come_back(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(ACCEPTED))
    free = [key for key in APPENDED if not any(line.startswith(f"{key}:") for line in text.split("\n"))]
    keys = data.draw(st.lists(st.sampled_from(free), min_size=1, max_size=5, unique=True))
    text, places = append(text, [data.draw(st.sampled_from(APPENDED[key])) for key in keys])
    assert found(text) == places


def test_several_syntax_faults_under_one_key_hide_neither_each_other_nor_others() -> None:
    text = "image: a\npackages:\n- 'x\n- @y\n- ok\n- [z\ntasks:\n- A: x\n- b: |\n  bad\n- c: y: z\n"
    assert found(text) == [(3, 3), (4, 3), (6, 3), (8, 3), (10, 3), (11, 7)]
