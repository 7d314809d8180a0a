"""Real manifests: the verdict of builds.sr.ht's own parsers, both of PyYAML's parsers alike, and the round trip."""

import csv
from pathlib import Path

import pytest

from leveret_proto.manifest import Limits, Manifest, read
from leveret_proto.manifest.loaders import PythonLoader

CORPUS = Path(__file__).parents[4] / "shared" / "corpus"


def rows() -> list[dict[str, str]]:
    index = CORPUS / "index.tsv"
    if not index.is_file():
        return []
    with index.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


ROWS = rows()
pytestmark = pytest.mark.skipif(not ROWS, reason="the corpus of real manifests does not stand beside the project")


def test_every_manifest_gets_its_verdict() -> None:
    wrong = {}
    for row in ROWS:
        reading = read((CORPUS / "manifests" / row["file"]).read_bytes())
        if (reading.manifest is not None) != (row["verdict"] == "accept"):
            wrong[row["file"]] = (row["reason"], [str(found) for found in reading.diagnostics])
        assert not reading.fatal
    assert not wrong


def test_both_parsers_of_pyyaml_give_the_same_reading() -> None:
    for row in ROWS:
        raw = (CORPUS / "manifests" / row["file"]).read_bytes()
        assert read(raw) == read(raw, loader=PythonLoader), row["file"]


def test_every_accepted_manifest_makes_the_round_trip() -> None:
    trips = 0
    for row in ROWS:
        manifest = read((CORPUS / "manifests" / row["file"]).read_bytes()).manifest
        if manifest is not None:
            assert read(manifest.to_yaml(), Limits(size=2**20)).manifest == manifest, row["file"]
            assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
            trips += 1
    assert trips > 200
