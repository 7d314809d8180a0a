"""`image.yml`: the shipped ones are good, faults are named, names can't reach outside."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from leveret_worker.images import ImageError
from leveret_worker.images.commands import main
from leveret_worker.images.model import check_name, parse_image, parse_mapping, recipes_directory
from leveret_worker.images.recipes import load_recipe, recipe_names

SHIPPED = recipes_directory()


@pytest.mark.parametrize("name", recipe_names(SHIPPED))
def test_shipped_descriptions_are_good(name: str) -> None:
    recipe = load_recipe(SHIPPED, name)
    assert recipe.script.is_file()
    assert "x86_64" in recipe.description.architectures
    assert recipe.description.guest.user == "build"


def test_an_alias_leads_to_its_image() -> None:
    assert load_recipe(SHIPPED, "debian/stable").name == "debian/trixie"


def test_every_fault_is_named_with_its_place() -> None:
    good = load_recipe(SHIPPED, "test/minimal").description.model_dump()
    with pytest.raises(ImageError) as caught:
        parse_image({**good, "disk_gib": 0, "guest": {**good["guest"], "user": "Build It"}, "m": []}, "here")
    message = str(caught.value)
    assert message.startswith("here: ")
    assert all(place in message for place in ("disk_gib", "guest.user", "m: Extra inputs"))


@pytest.mark.parametrize(
    ("text", "fault"), [("a: [", "here: not YAML"), ("", "must be a mapping"), ("- a", "must be a")]
)
def test_text_that_is_no_mapping_is_refused(text: str, fault: str) -> None:
    with pytest.raises(ImageError, match=fault):
        parse_mapping(text, "here")


@pytest.mark.parametrize("name", ["", "/etc", "../x", "a/../b", "a//b", "A", "a/", ".a", "a\nb", "a" * 64])
def test_a_name_can_not_leave_its_directory(name: str) -> None:
    with pytest.raises(ImageError, match="not an image's name"):
        check_name(name)


def test_an_unknown_image_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ImageError, match="debian/trixie"):
        load_recipe(SHIPPED, "plan9/fourth")


@pytest.fixture
def common(tmp_path: Path) -> Path:
    """`images/common.yml`, with all that a description needs but `extends`, and its recipe beside it."""
    (tmp_path / "images/x").mkdir(parents=True)
    (tmp_path / "images/recipe.sh").touch()
    description = load_recipe(SHIPPED, "test/minimal").description.model_dump()
    file = tmp_path / "images/common.yml"
    file.write_text(yaml.safe_dump({**description, "recipe": "../recipe.sh"}))
    return file


def test_a_recipe_outside_the_directory_is_refused(common: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.sh").touch()
    (tmp_path / "images/x/image.yml").write_text("extends: ../common.yml\nrecipe: ../../outside.sh\n")
    with pytest.raises(ImageError, match=r"recipe: \.\./\.\./outside\.sh lies outside"):
        load_recipe(tmp_path / "images", "x")


def test_what_an_image_extends_is_merged_and_part_of_its_digest(common: Path) -> None:
    images = common.parent
    (images / "x/more.yml").write_text("extends: ../common.yml\nmodules: []\nvariables: {SUITE: sid}\n")
    (images / "x/image.yml").write_text("extends: more.yml\ndescription: mine\nguest: {user: me}\n")
    recipe = load_recipe(images, "x")
    about = recipe.description
    assert (about.description, about.modules, about.guest.user, about.guest.home) == ("mine", [], "me", "/home/build")
    assert about.variables == {**load_recipe(SHIPPED, "test/minimal").description.variables, "SUITE": "sid"}
    common.write_text(common.read_text().replace("disk_gib: 2", "disk_gib: 3"))
    assert load_recipe(images, "x").digest != recipe.digest


@pytest.mark.parametrize("extended", ["../../outside.yml", "/etc/hostname", "nothing.yml", "image.yml", "circle.yml"])
def test_what_an_image_extends_lies_beside_it_and_ends(common: Path, tmp_path: Path, extended: str) -> None:
    (tmp_path / "outside.yml").write_text("{}")
    (common.parent / "x/circle.yml").write_text("extends: image.yml\n")
    (common.parent / "x/image.yml").write_text(f"extends: {extended}\n")
    with pytest.raises(ImageError, match="extends: "):
        load_recipe(common.parent, "x")


def test_shipped_images_pass_the_check_without_their_archives(tmp_path: Path) -> None:
    checked = CliRunner().invoke(main, ["check", "--store", str(tmp_path)])
    assert (checked.exit_code, checked.stderr) == (0, "")
    untried = {line.split(" ")[0] for line in checked.stdout.splitlines() if "never built" in line}
    assert untried == {"alpine/edge", "archlinux", "fedora/rawhide"}
