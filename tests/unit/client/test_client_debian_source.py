"""apt's configured sources, read as source sources without touching apt's configuration."""

from leveret_client.demonstration.debian_source import _lines, _stanzas

DEBIAN = frozenset({"http://mirror.example.net/debian"})
STANZAS = """\
Types: deb
# a comment
URIs: http://mirror.example.net/debian/
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://other.example.org/apt
Suites: nodistro
"""
LINES = """\
# deb http://mirror.example.net/debian trixie main
deb [signed-by=/k.gpg] http://mirror.example.net/debian trixie main
deb-src http://mirror.example.net/debian trixie main
deb https://other.example.org/apt nodistro main
"""


def test_stanzas_of_debian_become_source_stanzas_with_their_keys() -> None:
    told = _stanzas(STANZAS, DEBIAN)
    assert told.startswith("Types: deb-src\nURIs: http://mirror.example.net/debian/\n")
    assert "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg" in told
    assert "other.example.org" not in told


def test_lines_of_debian_become_source_lines_with_their_options() -> None:
    assert _lines(LINES, DEBIAN) == "deb-src [signed-by=/k.gpg] http://mirror.example.net/debian trixie main\n"


def test_where_apt_knows_no_origins_every_source_is_tried() -> None:
    assert _lines(LINES, frozenset()).count("deb-src ") == 2
    assert _stanzas(STANZAS, frozenset()).count("Types: deb-src") == 2
