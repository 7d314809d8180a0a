"""`leveret-image`: what it prints for people and for scripts, and its exit status."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from leveret_worker.images import ImageStore
from leveret_worker.images.commands import main
from leveret_worker.images.recipes import Recipe
from tests.support.probes import ARCH, add_image

Recipes = Callable[..., Recipe]
Command = Callable[..., Result]


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "store")


@pytest.fixture
def run(store: ImageStore, tmp_path: Path) -> Command:
    """Runs `leveret-image` on the test's store and recipes."""
    (tmp_path / "recipes").mkdir()

    def invoke(*words: str) -> Result:
        places = {"LEVERET_IMAGE_STORE": str(store.root), "LEVERET_IMAGE_RECIPES": str(tmp_path / "recipes")}
        return CliRunner().invoke(main, words, env=places)

    return invoke


def build(run: Command) -> Result:
    return run("build", "test/tiny", "--arch", "x86_64")


def test_build_prints_the_digest_and_is_quiet_in_a_pipe(run: Command, tiny_recipe: Recipes, store: ImageStore) -> None:
    tiny_recipe()
    built = build(run)
    assert (built.exit_code, built.stderr) == (0, "")
    assert built.stdout == store.find("test/tiny", "x86_64").digest + "\n"
    assert build(run).stdout == built.stdout


def test_progress_is_shown_on_a_terminal(tiny_recipe: Recipes, store: ImageStore, tmp_path: Path) -> None:
    tiny_recipe()
    command = [sys.executable, "-m", "leveret_worker.images", "build", "test/tiny", "--arch", "x86_64"]
    options = ["--store", str(store.root), "--recipes", str(tmp_path / "recipes")]
    terminal, inside = os.openpty()
    with os.fdopen(terminal, "rb", buffering=0) as shown:
        done = subprocess.run([*command, *options], stdout=subprocess.DEVNULL, stderr=inside, timeout=60, check=True)
        os.close(inside)
        text = b""
        try:
            while piece := shown.read(65536):
                text += piece
        except OSError:  # how Linux says that the other side has gone
            pass
    assert done.returncode == 0
    assert b"test/tiny x86_64: disk: " in text


def test_an_unknown_image_is_one_line_of_error(run: Command, tiny_recipe: Recipes) -> None:
    tiny_recipe()
    unknown = run("build", "test/other")
    assert unknown.exit_code == 1
    assert unknown.stderr == "Error: there is no recipe for test/other: the known images are test/tiny\n"


def test_list_tells_each_images_state(run: Command, tiny_recipe: Recipes, store: ImageStore) -> None:
    tiny_recipe(untried="nobody has such a machine")
    assert run("list").stdout == "test/tiny\taarch64\tuntried\t-\t-\t-\ntest/tiny\tx86_64\tuntried\t-\t-\t-\n"
    tiny_recipe()
    build(run)
    image = store.find("test/tiny", "x86_64")
    lines = run("list").stdout.splitlines()
    assert lines[0] == "test/tiny\taarch64\tabsent\t-\t-\t-"
    assert lines[1].startswith(f"test/tiny\tx86_64\tcurrent\t{image.digest[:12]}\t0 MB\t")
    tiny_recipe(": changed")
    add_image(store, "other/one")
    listed = json.loads(run("list", "--json").stdout)
    assert [(entry["name"], entry["architecture"], entry["state"]) for entry in listed] == [
        ("other/one", ARCH, "foreign"),
        ("test/tiny", "aarch64", "absent"),
        ("test/tiny", "x86_64", "outdated"),
    ]
    assert listed[2] == {
        "name": "test/tiny",
        "architecture": "x86_64",
        "state": "outdated",
        "description": "tiny",
        "aliases": ["test/alias"],
        "digest": image.digest,
        "bytes": image.size,
        "made": image.manifest.made.isoformat(),
    }


def test_check_names_what_is_damaged(run: Command, tiny_recipe: Recipes, store: ImageStore) -> None:
    tiny_recipe()
    build(run)
    good = run("check")
    assert good.exit_code == 0
    assert good.stdout == "test/tiny description: good\ntest/tiny x86_64 stored: good\n"
    shutil.rmtree(store.find("test/tiny", "x86_64").directory / "modules")
    damaged = run("check", "test/tiny")
    assert damaged.exit_code == 1
    assert "test/tiny x86_64 stored: " in damaged.stderr
    assert "00-m.ko is missing" in damaged.stderr


def test_check_parses_every_script_and_says_what_was_never_built(run: Command, tiny_recipe: Recipes) -> None:
    tiny_recipe(untried="nobody has such a machine")
    assert run("check").stdout == (
        "test/tiny description: good as far as it can be told; never built: nobody has such a machine\n"
    )
    tiny_recipe("if true; then")
    faulty = run("check")
    assert faulty.exit_code == 1
    assert faulty.stderr.startswith("test/tiny description: recipe is no shell script: ")


def test_an_image_that_does_not_boot_is_found_out(run: Command, tiny_recipe: Recipes) -> None:
    tiny_recipe()
    build(run)
    checked = run("check", "--boot", "--limit", "5")
    assert checked.exit_code == 1
    assert checked.stderr.startswith("test/tiny x86_64 boot: ")


def test_gc_says_what_it_removed(run: Command, tiny_recipe: Recipes, store: ImageStore) -> None:
    tiny_recipe()
    build(run)
    old = store.find("test/tiny", "x86_64")
    tiny_recipe(": changed")
    build(run)
    assert run("gc", "--dry-run").stdout.startswith(f"objects/{old.digest}\t")
    (removed,) = json.loads(run("gc", "--json").stdout)
    assert removed["path"] == str(old.directory)
    assert removed["bytes"] > 0
    assert not old.directory.exists()
    assert run("gc").stdout == ""
    store.verify(store.find("test/tiny", "x86_64"))
