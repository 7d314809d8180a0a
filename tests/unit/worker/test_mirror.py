"""Which URLs the source mirror answers for, and that nothing outside its directories is ever given away."""

from pathlib import Path

import pytest

from leveret_worker.mirror import Mirror


@pytest.fixture
def mirror(tmp_path: Path) -> Mirror:
    for name in ("inside/scdoc", "inside/~u/project.git", "outside"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "HEAD").write_text("ref: refs/heads/main\n")
    return Mirror({"https://git.example.org/": tmp_path / "inside"})


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://git.example.org/scdoc", "inside/scdoc"),
        ("https://git.example.org/scdoc/", "inside/scdoc"),
        ("https://git.example.org/~u/project", "inside/~u/project.git"),
    ],
)
def test_a_url_below_the_prefix_is_found(mirror: Mirror, tmp_path: Path, url: str, name: str) -> None:
    assert mirror.find(url) == tmp_path / name


@pytest.mark.parametrize(
    "url",
    [
        "https://git.example.org/../outside",
        "https://git.example.org/scdoc/../../outside",
        "https://git.example.org//outside/..",
        "https://git.example.org/",
        "https://other.example.org/scdoc",
        "https://git.example.org/unknown",
        "https://git.example.org/-scdoc/..",
    ],
)
def test_anything_else_is_not(mirror: Mirror, url: str) -> None:
    assert mirror.find(url) is None
