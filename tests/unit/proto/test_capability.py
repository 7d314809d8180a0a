from hypothesis import given
from hypothesis import strategies as st

from leveret_proto.capability import (
    Capabilities,
    ImageOffer,
    Lack,
    Requirement,
    capability_key,
    missing,
    offered_keys,
    requirement,
    serves,
)
from leveret_proto.manifest import read

ARCHES = st.sampled_from(["x86_64", "aarch64"])
IMAGES = st.sampled_from(["debian/trixie", "debian/bookworm", "alpine/3.22"])
TAGS = st.lists(st.sampled_from(["disk=large", "net=fast"]), max_size=2, unique=True).map(tuple)
SIZES = st.sampled_from([0, 1, 2])
REQUIREMENTS = st.builds(
    Requirement, arch=ARCHES, image=IMAGES, kvm=st.booleans(), tags=TAGS, memory_mib=SIZES, cpus=SIZES
)
OFFERS = st.builds(
    Capabilities,
    images=st.lists(st.builds(ImageOffer, arch=ARCHES, name=IMAGES, digest=st.just("00")), max_size=4).map(tuple),
    kvm=st.lists(ARCHES, max_size=2, unique=True).map(tuple),
    tags=TAGS,
    memory_mib=SIZES,
    cpus=SIZES,
)
OFFER = Capabilities(
    images=(ImageOffer(arch="x86_64", name="debian/trixie", digest="00"),),
    kvm=("x86_64",),
    tags=("disk=large",),
    memory_mib=2048,
    cpus=2,
)


@given(OFFERS, REQUIREMENTS)
def test_a_worker_binds_exactly_the_keys_of_what_it_serves(offer: Capabilities, wanted: Requirement) -> None:
    """Tags and sizes aside, which no key has: a grant finds the binding of a worker that serves it, and no other."""
    plain = wanted.model_copy(update={"tags": (), "memory_mib": 0, "cpus": 0})
    assert serves(offer, plain) == (wanted.key in offered_keys(offer))
    fits = wanted.memory_mib <= offer.memory_mib and wanted.cpus <= offer.cpus
    assert serves(offer, wanted) == (serves(offer, plain) and fits and set(wanted.tags) <= set(offer.tags))


@given(OFFERS, REQUIREMENTS)
def test_more_to_offer_never_serves_less(offer: Capabilities, wanted: Requirement) -> None:
    more = Capabilities(
        images=offer.images + OFFER.images,
        kvm=offer.kvm + OFFER.kvm,
        tags=offer.tags + OFFER.tags,
        memory_mib=offer.memory_mib + 1,
        cpus=offer.cpus + 1,
    )
    assert serves(more, wanted) >= serves(offer, wanted)
    assert offered_keys(more) >= offered_keys(offer)


def test_what_is_missing_is_named_from_the_most_general_on() -> None:
    def lack(**wanted: object) -> tuple[Lack, str] | None:
        return missing(Requirement.model_validate({"arch": "x86_64", "image": "debian/trixie"} | wanted), OFFER)

    assert lack(arch="aarch64", image="none", kvm=True) == (Lack.ARCH, "aarch64")
    assert lack(image="alpine/edge", kvm=True) == (Lack.IMAGE, "alpine/edge")
    assert lack(tags=("disk=large", "gpu")) == (Lack.TAGS, "gpu")
    assert lack(memory_mib=2049, cpus=3) == (Lack.MEMORY, "2049MiB")
    assert lack(memory_mib=4096) == (Lack.MEMORY, "4GiB")
    assert lack(memory_mib=2048, cpus=3, tags=("gpu",)) == (Lack.CPUS, "3")
    assert lack(kvm=True, memory_mib=2048, cpus=2) is None
    without = OFFER.model_copy(update={"kvm": ()})
    wanted = Requirement(arch="x86_64", image="debian/trixie", kvm=True)
    assert missing(wanted, without) == (Lack.KVM, "x86_64")


def test_kvm_serves_those_who_do_not_ask_for_it() -> None:
    assert serves(OFFER, Requirement(arch="x86_64", image="debian/trixie"))


def test_a_manifest_says_what_it_needs() -> None:
    text = "image: debian/stable\ntasks: [a: b]\nleveret: {memory: 2GiB, cpus: 4, requires: {kvm: true, tags: [gpu]}}\n"
    manifest = read(text).manifest
    assert manifest is not None
    assert requirement(manifest, "x86_64", "debian/trixie") == Requirement(
        arch="x86_64", image="debian/trixie", kvm=True, tags=("gpu",), memory_mib=2048, cpus=4
    )


def test_keys_escape_their_words() -> None:
    assert capability_key("x86_64", "alpine/3.22", kvm=False) == "x86_64.alpine/3%2E22.any"
    assert Requirement(arch="x86_64", image="debian/trixie", kvm=True).key == "x86_64.debian/trixie.kvm"
