"""Reading manifests: real ones where the corpus stands beside the checkout, else the examples."""

import time
from pathlib import Path

from bench.result import MB, Result
from bench.setting import Bench
from leveret_proto.manifest import read

ROOT = Path(__file__).parents[1]
CORPUS = ROOT.parent / "shared" / "corpus" / "manifests"
SECONDS = 3.0


async def measure(bench: Bench) -> list[Result]:
    """Read them all again and again for some seconds, valid or not."""
    folder = CORPUS if CORPUS.is_dir() else ROOT / "examples"
    texts = [path.read_bytes() for path in sorted(folder.glob("*.yml"))]
    count = size = 0
    began = time.perf_counter()
    while (seconds := time.perf_counter() - began) < SECONDS:
        for text in texts:
            read(text)
        count += len(texts)
        size += sum(map(len, texts))
    taken = f"{len(texts)} manifests of the {'corpus' if folder == CORPUS else 'examples'}, one process"
    return [
        Result("manifests read", count / seconds, "manifests/s", compared_with=taken),
        Result("manifests read, bytes", size / seconds / MB, "MB/s", compared_with=taken),
    ]
