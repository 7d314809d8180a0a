"""Names that images go by besides their own."""

from pathlib import Path

from leveret_intake.synonyms import image_synonyms


def test_the_images_of_this_distribution_bring_their_synonyms() -> None:
    assert image_synonyms()["debian/stable"] == "debian/trixie"


def test_a_folder_of_descriptions_may_say_otherwise_or_nothing(tmp_path: Path) -> None:
    image = tmp_path / "alpine" / "edge"
    image.mkdir(parents=True)
    (image / "image.yml").write_text("aliases: [alpine, alpine/latest]\n")
    assert image_synonyms(tmp_path) == {"alpine": "alpine/edge", "alpine/latest": "alpine/edge"}
    assert image_synonyms(tmp_path / "none") == {}
