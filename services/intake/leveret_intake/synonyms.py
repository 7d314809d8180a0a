"""Other names of images, as their descriptions in `deploy/images` give them: data that travels with the images."""

from pathlib import Path

import yaml


def image_synonyms(folder: Path | None = None) -> dict[str, str]:
    """Give each alias with the image it stands for, as `{"debian/stable": "debian/trixie"}`.

    Args:
        folder: of descriptions, `<name>/<name>/image.yml`; Leveret's own by default. Where none is, there are none.
    """
    found: dict[str, str] = {}
    for path in sorted((folder or _folder()).glob("*/*/image.yml")):
        described = yaml.safe_load(path.read_text())
        image = f"{path.parent.parent.name}/{path.parent.name}"
        found |= dict.fromkeys(described.get("aliases") or (), image)
    return found


def _folder() -> Path:
    """Beside the sources in a checkout, else in the installed wheel."""
    above = Path(__file__).resolve().parents
    checkout = above[3] / "deploy" / "images"
    return checkout if checkout.is_dir() else above[1] / "leveret_deploy" / "images"
