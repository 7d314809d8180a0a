"""The spool at a worker's start."""

from pathlib import Path

from leveret_worker.spool import Spool


def test_what_a_killed_worker_left_of_its_machines_is_gone_at_the_next_start(tmp_path: Path) -> None:
    Spool(tmp_path).close()
    machine = tmp_path / "run" / "0190-1234" / "machine"
    machine.mkdir(parents=True)
    (machine / "overlay.qcow2").write_bytes(b"of a build that is over")
    (tmp_path / "grants" / "0190-1234").mkdir()
    Spool(tmp_path).close()
    assert list((tmp_path / "run").iterdir()) == []
    assert (tmp_path / "grants" / "0190-1234").exists()  # its result may still have to be told
