"""`python -m leveret_worker.images` is `leveret-image`."""

from leveret_worker.images.commands import main

if __name__ == "__main__":
    main(prog_name="leveret-image")
