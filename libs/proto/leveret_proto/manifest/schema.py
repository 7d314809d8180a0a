"""The command `python -m leveret_proto.manifest.schema [--check] FILE`; what it does is in `json_schema`."""

import sys

from leveret_proto.manifest.json_schema import main

if __name__ == "__main__":
    sys.exit(main())
