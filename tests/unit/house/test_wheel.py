"""What is installed from the wheel works without the checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel holds."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "installed")
    return folder / "installed"


def test_images_are_known_from_the_wheel(installed: Path) -> None:
    program = """
import sys
from leveret_worker.images import commands, model
print(model.recipes_directory())
commands.main(["check", "--store", sys.argv[1]])
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(installed / "store")],
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    place, *findings = done.stdout.splitlines()
    assert Path(place) == installed / "leveret_deploy" / "images"
    assert "debian/trixie description: good" in findings


def test_the_wheel_brings_the_commands(installed: Path) -> None:
    (points,) = installed.glob("*.dist-info/entry_points.txt")
    assert "leveret-image = leveret_worker.images.commands:main" in points.read_text()


def test_the_wheel_brings_what_systemd_is_given(installed: Path) -> None:
    units = {path.name for path in (installed / "leveret_deploy" / "systemd").glob("*.service")}
    assert len(units) == 5 and "leveret-worker@.service" in units
    assert (installed / "leveret_deploy" / "config" / "worker.yaml").exists()
    assert (installed / "leveret_deploy" / "install.sh").exists()
