"""`image.yml`: the shipped ones are good, faults are named, names can't reach outside."""

from pathlib import Path

import pytest

from leveret_worker.images import ImageError
from leveret_worker.images.model import check_name, parse_image, recipes_directory
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
    text = (SHIPPED / "debian/trixie/image.yml").read_text()
    broken = (
        text.replace("disk_gib: 20", "disk_gib: 0").replace("user: build", "user: Build It").replace("modules:", "m:")
    )
    with pytest.raises(ImageError) as caught:
        parse_image(broken, "here")
    message = str(caught.value)
    assert message.startswith("here: ")
    assert all(place in message for place in ("disk_gib", "guest.user", "m: Extra inputs"))


def test_text_that_is_not_yaml_is_refused() -> None:
    with pytest.raises(ImageError, match="here: not YAML"):
        parse_image("a: [", "here")


@pytest.mark.parametrize("name", ["", "/etc", "../x", "a/../b", "a//b", "A", "a/", ".a", "a\nb", "a" * 64])
def test_a_name_can_not_leave_its_directory(name: str) -> None:
    with pytest.raises(ImageError, match="not an image's name"):
        check_name(name)


def test_an_unknown_image_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ImageError, match="debian/trixie"):
        load_recipe(SHIPPED, "plan9/fourth")


def test_a_recipe_outside_the_directory_is_refused(tmp_path: Path) -> None:
    text = (SHIPPED / "debian/trixie/image.yml").read_text().replace("../recipe.sh", "../../outside.sh")
    (tmp_path / "images/x").mkdir(parents=True)
    (tmp_path / "images/x/image.yml").write_text(text)
    (tmp_path / "outside.sh").write_text("")
    with pytest.raises(ImageError, match="outside"):
        load_recipe(tmp_path / "images", "x")
