"""Each rule of builds.sr.ht's manifests, by name: what is taken, as what, and what is not."""

import pytest

from leveret_proto.manifest import Limits, Manifest, Source, Task, Trigger, read
from leveret_proto.manifest.addresses import Address, addresses
from leveret_proto.manifest.rules import number
from tests.unit.manifest.support import BASE, accept, faults, warned

# -- keys


def test_all_keys_are_taken() -> None:
    manifest = accept(
        BASE + "arch: x86_64\npackages: [a]\nrepositories: {r: s}\nsources: ['https://x/y']\nenvironment: {A: b}\n"
        "secrets: [0818d60d-b587-4d4e-81d8-dc15072ccb97]\ntriggers: []\nartifacts: [a/b]\n"
        "shell: false\noauth: pages/RW\n"
        "submitter:\n  git.sr.ht:\n    enabled: true\n    allow-refs: [refs/heads/master]\n"
    )
    assert manifest.oauth == "pages/RW"
    assert manifest.submitter == {"git.sr.ht": {"enabled": True, "allow-refs": ["refs/heads/master"]}}


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("pacakge", "packages"),
        ("env", "environment"),
        ("Image", "image"),
        ("secret", "secrets"),
        ("artefacts", "artifacts"),
    ],
)
def test_an_unknown_key_earns_a_warning_with_a_guess(key: str, meant: str) -> None:
    reading = read(f"{BASE}{key}: x\n")
    assert reading.manifest is not None
    (warning,) = reading.warnings
    assert (warning.line, warning.column, warning.path) == (4, 1, key)
    assert meant in warning.hint


def test_a_duplicate_key_earns_a_warning_and_the_later_one_counts() -> None:
    manifest, warnings = warned(BASE + "image: debian/stable\n")
    assert manifest.image == "debian/stable"
    assert warnings == [(4, 1, "image")]


def test_environment_given_twice_adds_up_as_in_the_api_parser() -> None:
    manifest, warnings = warned("environment: {A: a, B: b}\n" + BASE + "environment:\n  B: c\n")
    assert manifest.environment == {"A": "a", "B": "c"}
    assert warnings == [(5, 1, "environment")]


def test_further_documents_earn_a_warning_and_need_not_be_sound() -> None:
    assert warned(BASE + "---\nimage: [\n")[1] == [(4, 1, "")]
    assert warned(BASE + "...\n---\nimage: other\n")[0].image == "alpine/edge"


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n"])
def test_an_empty_manifest_lacks_image_and_tasks(text: str) -> None:
    assert faults(text) == [(1, 1, "image"), (1, 1, "tasks")]


@pytest.mark.parametrize("text", ["- image: x\n", "just text\n"])
def test_a_manifest_is_a_mapping(text: str) -> None:
    assert faults(text) == [(1, 1, "")]
    assert not read(text).fatal


# -- scalars


@pytest.mark.parametrize("text", ["3.10", "1_000", "0x1F", "yes", "2024-01-01", "~x", '"quoted"'])
def test_a_string_field_takes_any_scalar_as_its_literal_text(text: str) -> None:
    assert accept(f"{BASE}packages: [{text}]\n").packages == (text.strip('"'),)


@pytest.mark.parametrize("null", ["", "~", "null", "!!null ''"])
@pytest.mark.parametrize(
    "key",
    sorted(set(Manifest.model_fields) - {"image", "tasks"}),
)
def test_null_means_absent_for_every_optional_key(key: str, null: str) -> None:
    assert accept(f"{BASE}{key}: {null}\n") == accept(BASE)


@pytest.mark.parametrize("value", ["", "~", '""'])
def test_image_is_required(value: str) -> None:
    assert faults(f"tasks: [a: b]\nimage: {value}\n") == [(2, 1, "image")]


@pytest.mark.parametrize("name", ["../etc", "/etc", "a//b", '"a\\nb"', "x" * 81])
def test_an_image_has_a_name_that_can_be_routed_and_is_no_way_out(name: str) -> None:
    assert faults(f"tasks: [a: b]\nimage: {name}\n") == [(2, 8, "image")]


# -- environment


def test_environment_takes_null_bool_int_float_string_and_lists_of_strings() -> None:
    manifest = accept(
        f"{BASE}environment:\n  N:\n  T: yes\n  F: off\n  I: 0x10\n  O: 0755\n  X: 2.5\n  S: '1'\n  L: [a, 3.10]\n"
        "  D: 2024-01-01\n  C: 1:30\n"
    )
    assert manifest.environment == {
        "N": None,
        "T": True,
        "F": False,
        "I": 16,
        "O": 493,
        "X": 2.5,
        "S": "1",
        "L": ("a", "3.10"),
        "D": "2024-01-01",
        "C": "1:30",
    }


@pytest.mark.parametrize("text", ["9007199254740993", "-18446744073709551617", "1" + "0" * 400])
def test_integers_never_turn_into_floats(text: str) -> None:
    value = accept(f"{BASE}environment: {{N: {text}}}\n").environment["N"]
    assert type(value) is int and str(value) == text


def test_an_integer_too_long_to_print_stays_text() -> None:
    text = "9" * 5000
    assert accept(f"{BASE}environment: {{N: {text}}}\n").environment["N"] == text


def test_a_float_that_changes_its_look_earns_a_warning() -> None:
    manifest, warnings = warned(f"{BASE}environment:\n  V: 3.10\n")
    assert manifest.environment == {"V": 3.1}
    assert warnings == [(5, 6, "environment.V")]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.1, "3.1"),
        (2.0, "2"),
        (1e21, "1e+21"),
        (1e20, "100000000000000000000"),
        (0.0001, "0.0001"),
        (1.5e-7, "1.5e-07"),
        (-0.0, "-0"),
        (123456789.25, "123456789.25"),
    ],
)
def test_floats_print_as_gos_g_does(value: float, text: str) -> None:
    assert number(value) == text


def test_a_list_in_place_of_the_environment_is_rejected() -> None:
    assert faults(f"{BASE}environment:\n  - A=b\n") == [(5, 3, "environment")]


@pytest.mark.parametrize("value", ["{a: b}", "[[a]]", "[{a: b}]"])
def test_nested_environment_values_are_rejected(value: str) -> None:
    (fault,) = faults(f"{BASE}environment:\n  A: {value}\n")
    assert fault[0] == 5 and fault[2].startswith("environment.A")


def test_a_variable_bash_could_not_export_earns_a_warning() -> None:
    assert warned(f"{BASE}environment:\n  A-B: c\n")[1] == [(5, 3, "environment.A-B")]


# -- tasks


def test_tasks_are_one_key_maps_with_empty_scripts_allowed() -> None:
    manifest = accept("image: a\ntasks:\n- a-b_1:\n- 2: true\n- c: |\n    x\n     y\n")
    assert manifest.tasks == (
        Task(name="a-b_1", script=""),
        Task(name="2", script="true"),
        Task(name="c", script="x\n y\n"),
    )


@pytest.mark.parametrize("name", ["Build", "a b", "a.b", "x" * 129, '""', "ä", '"a\\n"'])
def test_a_task_name_has_1_to_128_of_its_characters(name: str) -> None:
    assert faults(f"image: a\ntasks:\n- ok: x\n- {name}: x\n")[0][:2] == (4, 3)
    accept(f"image: a\ntasks:\n- {'x' * 128}: x\n")


def test_task_names_are_unique() -> None:
    assert faults("image: a\ntasks:\n- a: x\n- b: x\n- a: y\n") == [(5, 3, "tasks[2].a")]


@pytest.mark.parametrize(
    ("item", "column"),
    [("just text", 3), ("", 2), ("{a: b, c: d}", 3), ("{}", 3), ("[a: b]", 3), ("a: [b]", 6), ("a: {b: c}", 6)],
)
def test_a_task_that_is_no_one_key_map_of_text_is_rejected(item: str, column: int) -> None:
    ((line, found, path),) = faults(f"image: a\ntasks:\n- ok: x\n- {item}\n")
    assert (line, found) == (4, column) and path.startswith("tasks[1]")


@pytest.mark.parametrize("tasks", ["", "tasks:\n", "tasks: []\n"])
def test_no_tasks_only_with_shell(tasks: str) -> None:
    assert faults("image: a\n" + tasks)[0][2] == "tasks"
    assert faults("image: a\nshell: false\n" + tasks)[0][2] == "tasks"
    assert accept("image: a\nshell: true\n" + tasks).shell


@pytest.mark.parametrize("value", ["{a: b}", "text", '""', "3"])
def test_tasks_in_any_other_form_are_rejected(value: str) -> None:
    assert faults(f"image: a\nshell: true\ntasks: {value}\n") == [(3, 8, "tasks")]


def test_of_a_name_given_twice_in_one_task_the_later_counts() -> None:
    manifest, warnings = warned("image: a\ntasks:\n- a: x\n  a: y\n")
    assert manifest.tasks == (Task(name="a", script="y"),)
    assert warnings == [(4, 3, "tasks[0].a")]


@pytest.mark.parametrize("value", ['"true"', "1", "maybe", "[]"])
def test_shell_is_a_boolean(value: str) -> None:
    assert faults(f"{BASE}shell: {value}\n") == [(4, 8, "shell")]


# -- sources


@pytest.mark.parametrize(
    ("text", "scm", "url", "ref", "directory"),
    [
        ("https://git.sr.ht/~u/x", "git", "https://git.sr.ht/~u/x", None, "x"),
        ("https://h/x.git", "git", "https://h/x.git", None, "x"),
        ("https://h/x.git/", "git", "https://h/x.git/", None, "x"),
        ("git://c9x.me/qbe.git#v1", "git", "git://c9x.me/qbe.git", "v1", "qbe"),
        ("git+ssh://git@h/~u/x", "git", "ssh://git@h/~u/x", None, "x"),
        ("hg+https://hg.sr.ht/~u/x.git", "hg", "https://hg.sr.ht/~u/x.git", None, "x.git"),
        ("git@h:~u/x.git#a/b", "git", "git@h:~u/x.git", "a/b", "x"),
        ("git@h:x", "git", "git@h:x", None, "git@h:x"),
        ("https://git.sr.ht:~user/x", "git", "https://git.sr.ht:~user/x", None, "x"),
        ("lib::https://h/x.git", "git", "https://h/x.git", None, "lib"),
        ("lib.git::https://h/x", "git", "https://h/x", None, "lib.git"),
        ("::https://h/x.git", "git", "https://h/x.git", None, "x.git"),
        ("d::hg+https://h/x#tip", "hg", "https://h/x", "tip", "d"),
        ("https://h/x#", "git", "https://h/x", None, "x"),
    ],
)
def test_sources_and_their_directories(text: str, scm: str, url: str, ref: str | None, directory: str) -> None:
    (source,) = accept(f"{BASE}sources:\n- '{text}'\n").sources
    assert source == Source(text=text, scm=scm, url=url, ref=ref, directory=directory)


@pytest.mark.parametrize("text", ["https://h/x#a#b", "a::b::https://h/x", "svn+https://h/x", "https://h/x y", "d::"])
def test_a_source_that_can_not_be_fetched_earns_a_warning(text: str) -> None:
    assert warned(f"{BASE}sources:\n- '{text}'\n")[1] == [(5, 3, "sources[0]")]


@pytest.mark.parametrize("key", ["packages", "sources", "secrets", "artifacts", "triggers"])
@pytest.mark.parametrize("value", ["text", "{a: b}"])
def test_lists_are_lists(key: str, value: str) -> None:
    assert faults(f"{BASE}{key}: {value}\n") == [(4, len(key) + 3, key)]


@pytest.mark.parametrize("key", ["packages", "sources", "secrets", "artifacts"])
def test_items_of_lists_are_texts(key: str) -> None:
    assert faults(f"{BASE}{key}:\n- [a]\n- a: b\n") == [(5, 3, f"{key}[0]"), (6, 3, f"{key}[1]")]


@pytest.mark.parametrize("key", ["packages", "sources"])
def test_empty_items_are_left_out_with_a_warning(key: str) -> None:
    manifest, warnings = warned(f"{BASE}{key}: [a, ~, '']\n")
    assert [str(getattr(item, "text", item)) for item in getattr(manifest, key)] == ["a"]
    assert [path for _, _, path in warnings] == [f"{key}[1]", f"{key}[2]"]


def test_repositories_are_a_mapping_of_texts() -> None:
    assert accept(f"{BASE}repositories: {{r: https://x y main KEY}}\n").repositories == {"r": "https://x y main KEY"}
    assert faults(f"{BASE}repositories: [a]\n") == [(4, 15, "repositories")]
    assert faults(f"{BASE}repositories: {{a: [b]}}\n") == [(4, 19, "repositories.a")]


# -- secrets and artifacts


@pytest.mark.parametrize("name", ["0818d60d-b587-4d4e-81d8-dc15072ccb97", "abcd", "my deploy key", "é" * 255])
def test_secrets_are_uuids_or_names_of_4_to_511_bytes(name: str) -> None:
    assert accept(f"{BASE}secrets:\n- {name}\n").secrets == (name,)


@pytest.mark.parametrize("name", ["abc", "~", "''", "x" * 512, "é" * 256])
def test_secrets_outside_4_to_511_bytes_are_rejected(name: str) -> None:
    assert faults(f"{BASE}secrets:\n- good name\n- {name}\n") == [(6, 3, "secrets[1]")]


@pytest.mark.parametrize("items", ["[a/b, a/b]", "[a/b, c/b]", "[b, c/b/]"])
def test_artifacts_are_unique_by_path_and_base_name(items: str) -> None:
    ((line, _, path),) = faults(f"{BASE}artifacts: {items}\n")
    assert (line, path) == (4, "artifacts[1]")


@pytest.mark.parametrize("item", ["''", "~"])
def test_an_artifact_is_not_empty(item: str) -> None:
    assert faults(f"{BASE}artifacts: [{item}]\n") == [(4, 13, "artifacts[0]")]


def test_more_artifacts_than_the_limit_earn_a_warning_and_are_cut() -> None:
    items = ", ".join(f"a{n}" for n in range(10))
    manifest, warnings = warned(f"{BASE}artifacts: [{items}]\n")
    assert manifest.artifacts == tuple(f"a{n}" for n in range(8))
    assert [path for _, _, path in warnings] == ["artifacts[8]"]
    assert len(accept(f"{BASE}artifacts: [{items}]\n", Limits(artifacts=10)).artifacts) == 10


# -- triggers


def trigger(text: str) -> Trigger:
    (found,) = accept(f"{BASE}triggers:\n- {text}\n").triggers
    return found


@pytest.mark.parametrize("condition", ["success", "failure", "always"])
def test_triggers_mail_and_post(condition: str) -> None:
    mail = trigger(f"{{action: email, condition: {condition}, to: a@b, in_reply_to: <x@y>}}")
    assert (mail.action, mail.condition, mail.to, mail.in_reply_to) == ("email", condition, "a@b", "<x@y>")
    hook = trigger(f"{{action: webhook, condition: {condition}, url: 'https://x/y'}}")
    assert (hook.action, hook.condition, hook.url) == ("webhook", condition, "https://x/y")


def test_a_cc_only_mail_is_taken() -> None:
    assert trigger("{action: email, condition: always, cc: a@b}").cc == "a@b"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a@b.example", [("", "a@b.example")]),
        ("Na Me <a@b>", [("Na Me", "a@b")]),
        ("<a@b>", [("", "a@b")]),
        ("~user/list@lists.sr.ht", [("", "~user/list@lists.sr.ht")]),
        ("<~user/list@lists.sr.ht>, a+b@c", [("", "~user/list@lists.sr.ht"), ("", "a+b@c")]),
        ('"Last, First" <a@b>,c@d', [("Last, First", "a@b"), ("", "c@d")]),
    ],
)
def test_addresses_are_read(text: str, found: list[tuple[str, str]]) -> None:
    assert addresses(text) == [Address(*one) for one in found]


@pytest.mark.parametrize("text", ["nobody", "a@", "", ",", "a b@c", "x <a@b", "a@b>"])
def test_what_is_no_address_earns_a_warning(text: str) -> None:
    manifest, warnings = warned(f"{BASE}triggers:\n- action: email\n  condition: always\n  to: '{text}'\n")
    assert warnings == [(7, 7, "triggers[0].to")]
    assert manifest.triggers[0].to == text


@pytest.mark.parametrize(
    ("text", "column", "path"),
    [
        ("{condition: always, to: a@b}", 3, ".action"),
        ("{action: ~, condition: always}", 3, ".action"),
        ("{action: mail, condition: always, to: a@b}", 12, ".action"),
        ("{action: email, condition: failed, to: a@b}", 30, ".condition"),
        ("{action: email, condition: always}", 3, ".to"),
        ("{action: email, condition: always, to: ~}", 3, ".to"),
        ("{action: webhook, condition: always}", 3, ".url"),
        ("{action: webhook, condition: always, url: [a]}", 45, ".url"),
        ('{action: email, condition: always, to: "a@b\\nBcc: c@d"}', 42, ".to"),
        ("text", 3, ""),
        ("", 2, ""),
    ],
)
def test_a_trigger_that_lacks_what_it_needs_is_rejected(text: str, column: int, path: str) -> None:
    assert faults(f"{BASE}triggers:\n- {text}\n") == [(5, column, f"triggers[0]{path}")]


def test_a_trigger_without_a_condition_never_fires_and_is_left_out() -> None:
    manifest, warnings = warned(f"{BASE}triggers:\n- action: email\n  to: a@b\n")
    assert manifest.triggers == ()
    assert warnings == [(5, 3, "triggers[0]")]


def test_an_unknown_key_of_a_trigger_earns_a_warning() -> None:
    text = f"{BASE}triggers:\n- action: email\n  condition: always\n  to: a@b\n  ccc: c@d\n"
    assert warned(text)[1] == [(8, 3, "triggers[0].ccc")]


# -- images and architectures


@pytest.mark.parametrize(
    ("name", "same"), [("amd64", "x86_64"), ("arm64", "aarch64"), ("ppc64el", "ppc64le"), ("riscv64", "riscv64")]
)
def test_synonyms_of_architectures_meet(name: str, same: str) -> None:
    assert accept(f"{BASE}arch: {name}\n").arch == same


def test_synonyms_of_images_come_from_the_configuration() -> None:
    assert accept("image: debian/stable\ntasks: [a: b]\n").image == "debian/stable"
    limits = Limits(image_synonyms={"debian/stable": "debian/trixie"}, known_images=frozenset(["debian/trixie"]))
    assert accept("image: debian/stable\ntasks: [a: b]\n", limits).image == "debian/trixie"


KNOWN = {"known_images": frozenset(["debian/trixie", "alpine/edge"]), "known_arches": frozenset(["x86_64"])}
UNKNOWN = "image: debian/trixy\narch: x86-64\ntasks: [a: b]\n"


def test_what_nobody_has_ever_offered_is_warned_of_with_the_closest_names() -> None:
    reading = read(UNKNOWN, Limits(**KNOWN))
    assert reading.manifest is not None
    image, arch = reading.warnings
    assert (image.line, image.column) == (1, 8) and "debian/trixie" in image.hint
    assert (arch.line, arch.column) == (2, 7) and "x86_64" in arch.hint


def test_what_nobody_has_ever_offered_is_rejected_by_policy() -> None:
    assert faults(UNKNOWN, Limits(**KNOWN, unknown="reject")) == [(1, 8, "image"), (2, 7, "arch")]


# -- our own key


def test_leveret_takes_requirements_a_time_limit_and_when_to_keep_artifacts() -> None:
    own = accept(
        BASE + "leveret:\n  requires: {kvm: true, tags: [disk=large, gpu]}\n  time_limit: 90\n  task_time_limit: 1m\n"
        "  artifacts_on: always\n"
    ).leveret
    assert (own.requires.kvm, own.requires.tags) == (True, ("disk=large", "gpu"))
    assert (own.time_limit, own.task_time_limit, own.artifacts_on) == (90, 60, "always")


@pytest.mark.parametrize(
    ("text", "mib"), [("2GiB", 2048), ("512MiB", 512), ("'64 MiB'", 64), ("1073741824", 1024), ("1024GiB", 1024 * 1024)]
)
def test_memory_is_asked_for_in_whole_mib(text: str, mib: int) -> None:
    own = accept(f"{BASE}leveret: {{memory: {text}, cpus: 4}}\n").leveret
    assert (own.memory, own.cpus) == (mib * 1024 * 1024, 4)


@pytest.mark.parametrize(
    ("text", "seconds"), [("1", 1), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("604800", 604800)]
)
def test_time_limits(text: str, seconds: int) -> None:
    assert accept(f"{BASE}leveret: {{time_limit: {text}}}\n").leveret.time_limit == seconds


@pytest.mark.parametrize(
    ("text", "column", "path"),
    [
        ("{time_limit: 0}", 23, ".time_limit"),
        ("{time_limit: 1.5}", 23, ".time_limit"),
        ("{time_limit: soon}", 23, ".time_limit"),
        ("{time_limit: 604801}", 23, ".time_limit"),
        ("{time_limit: yes}", 23, ".time_limit"),
        ("{memory: 63MiB}", 19, ".memory"),
        ("{memory: 1025GiB}", 19, ".memory"),
        ("{memory: 2GB}", 19, ".memory"),
        ("{memory: 2147483649}", 19, ".memory"),
        ("{memory: much}", 19, ".memory"),
        ("{memory: yes}", 19, ".memory"),
        ("{cpus: 0}", 17, ".cpus"),
        ("{cpus: 257}", 17, ".cpus"),
        ("{cpus: two}", 17, ".cpus"),
        ("{cpus: 1.5}", 17, ".cpus"),
        ("{artifacts_on: failure}", 25, ".artifacts_on"),
        ("{requires: kvm}", 21, ".requires"),
        ("{requires: {kvm: maybe}}", 27, ".requires.kvm"),
        ("{requires: {tags: [a b]}}", 29, ".requires.tags[0]"),
        ("{requires: {cpu: 4}}", 22, ".requires.cpu"),
        ("{requirse: {}}", 11, ".requirse"),
        ("[kvm]", 10, ""),
        ("true", 10, ""),
    ],
)
def test_anything_else_under_leveret_is_a_fault(text: str, column: int, path: str) -> None:
    ((line, found, where),) = faults(f"{BASE}leveret: {text}\n")
    assert (line, where) == (4, f"leveret{path}")
    assert found == column


# -- anchors, merges, tags


def test_aliases_and_merges_are_followed() -> None:
    manifest = accept(BASE + "environment: &e\n  A: a\n  B: b\nsubmitter:\n  <<: *e\n  B: c\n")
    assert manifest.submitter == {"A": "a", "B": "c"}


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("packages: *nothing\n", (4, 11)),
        ("packages: &p [a, *p]\n", (4, 18)),
        ("environment:\n  <<: text\n", (5, 7)),
        ("environment:\n  ? [a]\n  : b\n", (5, 5)),
        ("packages: [!!int x]\n", (4, 12)),
        ("oauth: !!binary '*'\n", (4, 8)),
    ],
)
def test_bad_aliases_merges_keys_and_tags_are_rejected(text: str, place: tuple[int, int]) -> None:
    assert [fault[:2] for fault in faults(BASE + text)] == [place]


def test_a_foreign_tag_is_never_acted_on() -> None:
    manifest, warnings = warned(f"{BASE}oauth: !x a\n")
    assert manifest.oauth == "a" and warnings == [(4, 8, "")]
    reading = read(f"{BASE}packages: !!python/object/apply:os.system [exit]\n")
    assert reading.manifest is not None and reading.manifest.packages == ("exit",)
    assert "python/object" in reading.warnings[0].message
