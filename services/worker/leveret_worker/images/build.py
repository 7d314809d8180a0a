"""Making an image: recipe → tree → ext4 → qcow2 → store. Needs no loop mount and no KVM, so it works in containers.

Only the recipe and what handles the tree it made runs as root; the result belongs to the caller.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from leveret_worker.images.errors import ImageError
from leveret_worker.images.host import remove_tree, require_commands, require_root, run
from leveret_worker.images.kernel import require_static, take_file, take_modules
from leveret_worker.images.recipes import Recipe
from leveret_worker.images.store import ImageManifest, ImageStore, StoredImage

RECIPE_LIMIT = 3600.0
STEP_LIMIT = 900.0
OWN_NEEDS = {"tar": "tar", "mke2fs": "e2fsprogs", "qemu-img": "qemu-utils"}


Steps = Callable[[str], AbstractContextManager[None]]
"""Called with the title of each step, which lasts as long as the context: shows progress."""


def build_image(
    recipe: Recipe, architecture: str, store: ImageStore, step: Steps, *, mirror: str | None = None, force: bool = False
) -> StoredImage:
    """Build an image into the store, unless the one there is from the same recipe.

    Blocks for as long as it takes (a minute for Debian): run it in a process or a thread of its own. Ended at any point
    it leaves nothing behind; where it was killed, the next build of the same image clears up. A second one at the same
    time waits for the first and takes its result.

    Args:
        recipe: from `load_recipe`.
        architecture: one of the description's.
        store: where the image goes.
        step: shows progress, as `StepProgress` does.
        mirror: the URL of a package archive to take everything from; without it the recipe decides.
        force: build even if there is one from the same recipe.

    Raises:
        ImageError: a tool is missing, a step failed, or the image is not made for that architecture.
    """
    if architecture not in recipe.description.architectures:
        known = ", ".join(recipe.description.architectures)
        raise ImageError(f"{recipe.name} has no recipe for {architecture}, only for {known}")
    with store.building(recipe.name, architecture):
        if not force and (image := _current(recipe, architecture, store)) is not None:
            return image
        require_commands({**OWN_NEEDS, **recipe.needs(architecture)})
        require_root()
        work = store.work_directory(recipe.name, architecture)
        remove_tree(work)
        work.mkdir(parents=True)
        try:
            return _Build(recipe, architecture, store, step, work).run(mirror)
        finally:
            remove_tree(work)


def _current(recipe: Recipe, architecture: str, store: ImageStore) -> StoredImage | None:
    try:
        image = store.find(recipe.name, architecture)
    except ImageError:
        return None
    return image if image.manifest.recipe_digest == recipe.digest else None


class _Build:
    """One build under way in its own directory `work`."""

    def __init__(self, recipe: Recipe, architecture: str, store: ImageStore, step: Steps, work: Path) -> None:
        self.recipe = recipe
        self.architecture = architecture
        self.store = store
        self.step = step
        self.archive, self.tree = work / "root.tar", work / "tree"
        self.raw, self.result, self.log = work / "root.raw", work / "result", work / "log"

    def run(self, mirror: str | None) -> StoredImage:
        """All steps in their order."""
        description = self.recipe.description
        self.result.mkdir()
        self.tree.mkdir()
        with self.step("root file system"):
            self._run_recipe(mirror)
        with self.step("kernel and modules"):
            # Devices are not unpacked (containers may not make them): the guest's /dev is the kernel's own.
            self._root("tar", "-C", str(self.tree), "--numeric-owner", "--exclude=./dev/*", "-xpf", str(self.archive))
            self.archive.unlink()
            take_file(self.tree, "kernel", description.kernel, self.result / "kernel")
            take_file(self.tree, "busybox", description.busybox, self.result / "busybox")
            require_static(self.result / "busybox")
            take_modules(self.tree, description.modules, self.result / "modules")
            # They would lie in every guest twice.
            self._root("find", str(self.tree / "boot"), "-mindepth", "1", "-delete")
        with self.step("disk"):
            self._make_disk(description.disk_gib)
        with self.step("store"):
            manifest = ImageManifest(
                name=self.recipe.name,
                architecture=self.architecture,
                made=datetime.now(UTC).replace(microsecond=0),
                recipe_digest=self.recipe.digest,
                description=description,
                files=[],
            )
            return self.store.add(self.result, manifest)

    def _run_recipe(self, mirror: str | None) -> None:
        variables = self.recipe.description.variables
        variables = variables | self.recipe.description.architectures[self.architecture].variables
        if mirror is not None:
            variables = variables | {"MIRROR": mirror}
        with self.archive.open("wb") as output:
            command = ["sh", "-eu", str(self.recipe.script)]
            run(command, log=self.log, limit=RECIPE_LIMIT, root=True, environment=variables, output=output)

    def _make_disk(self, gib: int) -> None:
        with self.raw.open("wb") as stream:
            stream.truncate(gib * 1024**3)
        # No journal: the disk is thrown away with its machine. A sparse file is zero already.
        features = ["-O", "^has_journal", "-m", "0", "-E", "assume_storage_prezeroed=1,nodiscard"]
        self._root("mke2fs", "-q", "-F", "-t", "ext4", *features, "-d", str(self.tree), str(self.raw))
        target = str(self.result / "root.qcow2")
        compression = ["-c", "-o", "compression_type=zstd", "-m", "8", "-W"]
        run(
            ["qemu-img", "convert", *compression, "-f", "raw", "-O", "qcow2", str(self.raw), target],
            log=self.log,
            limit=STEP_LIMIT,
        )

    def _root(self, *command: str) -> None:
        run(list(command), log=self.log, limit=STEP_LIMIT, root=True)
