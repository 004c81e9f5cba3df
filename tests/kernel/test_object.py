"""The object that is shipped: what bpf/ builds, small, and clear about what it misses."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raft_agent.kernel import OBJECT_PATH, libbpf
from raft_agent.kernel.libbpf import KernelUnavailable
from tests.kernel import harness

BPF = Path(__file__).parents[2] / "bpf"
SECTIONS = {"tc", "tc/ingress", "tc/egress", ".maps", ".rodata", "license", ".BTF"}


def read(object_path: Path, *options: str) -> str:
    return harness.run("llvm-readelf", "--wide", *options, object_path)


def sections(object_path: Path) -> dict[str, int]:
    """Size by name."""
    found = re.findall(
        r"^ +\[ *\d+\] (\S+) +\S+ +\S+ \S+ ([0-9a-f]+)",
        read(object_path, "--sections"),
        re.MULTILINE,
    )
    return {name: int(size, 16) for name, size in found}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The object as bpf/ builds it now, on this machine."""
    path = tmp_path_factory.mktemp("bpf") / "raft_tc.bpf.o"
    done = subprocess.run(
        ["make", "-s", "-C", BPF, f"OBJECT={path}"], check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")  # no warning
    return path


def compiler(object_path: Path) -> str:
    """Which clang built the object, as bpf/Makefile notes it there."""
    return read(object_path, "--string-dump=.comment").splitlines()[-1]


def test_what_is_shipped_is_what_the_sources_build(built: Path) -> None:
    if compiler(built) == compiler(OBJECT_PATH):
        assert built.read_bytes() == OBJECT_PATH.read_bytes(), "run make bpf and commit the object"
    else:  # another clang orders instructions otherwise; the interface must still be the same
        shipped, fresh = sections(OBJECT_PATH), sections(built)
        assert shipped.keys() == fresh.keys()
        assert [shipped[name] for name in (".maps", ".rodata", "license")] == [
            fresh[name] for name in (".maps", ".rodata", "license")
        ]
        assert symbols(OBJECT_PATH) == symbols(built)


def symbols(object_path: Path) -> set[str]:
    """Programs, maps and data by name."""
    return set(
        re.findall(r"(?:FUNC|OBJECT) +GLOBAL +\S+ +\S+ (\w+)", read(object_path, "--symbols"))
    )


def test_the_object_holds_programs_maps_and_their_types_and_nothing_else() -> None:
    found = {
        name
        for name in sections(OBJECT_PATH)
        if not name.startswith((".rel", ".strtab", ".symtab", ".text", ".comment"))
    }
    assert found == SECTIONS
    assert {"raft_ingress", "raft_egress", "raft_walk", "config", "flows"} <= symbols(OBJECT_PATH)


def test_only_maps_are_relocated() -> None:
    """CO-RE relocations, for which kernels need BTF of their own, would stand in .BTF.ext."""
    assert ".BTF.ext" not in sections(OBJECT_PATH)
    relocations = read(OBJECT_PATH, "--relocations")
    programs = re.findall(r"'(\.rel(?:tc\S*))'(.*?)(?=\nRelocation|\Z)", relocations, re.DOTALL)
    assert {name for name, _ in programs} == {".reltc", ".reltc/ingress", ".reltc/egress"}
    for _, lines in programs:
        targets = set(re.findall(r"R_BPF_64_64 +[0-9a-f]+ +(\w+)", lines))
        assert targets <= symbols(OBJECT_PATH) - {"raft_ingress", "raft_egress", "raft_walk"}


def test_the_object_is_small_and_prints_nothing() -> None:
    assert OBJECT_PATH.stat().st_size < 64 << 10
    sources = "".join(file.read_text() for file in BPF.iterdir() if file.suffix in {".c", ".h"})
    assert "bpf_printk" not in sources
    assert "preserve_access_index" not in sources
    assert 'license") = "Dual MIT/GPL"' in sources


# --- loading --------------------------------------------------------------------------------------


@pytest.fixture
def pin_dir() -> Iterator[Path]:
    """A directory on a bpffs of its own."""
    mount = Path(f"/run/raft-test-bpf-{time.monotonic_ns()}")
    mount.mkdir()
    harness.run("mount", "-t", "bpf", "bpf", mount)
    yield mount
    harness.run("umount", mount)
    mount.rmdir()


def test_loading_twice_pins_the_newer_maps(pin_dir: Path) -> None:
    for term in (1, 2):
        with_pins = libbpf.load(OBJECT_PATH, rodata={"raft_port": 1}, pin_dir=pin_dir)
        with_pins.map("view").update(bytes(4), term.to_bytes(8, "little") + bytes(16))
        with_pins.close()
    view = libbpf.open_pinned(pin_dir / "view")
    assert (view.lookup(bytes(4)) or b"")[:1] == b"\x02"
    names = {file.name for file in pin_dir.iterdir()}
    assert {"flows", "stats", "allowed", "faults"} <= names
    assert not names & {"packets", "parts", "events"}
    assert not [name for name in names if "new" in name]


def test_where_nothing_can_be_pinned_the_reason_is_said(tmp_path: Path) -> None:
    with pytest.raises(KernelUnavailable, match="must be a directory on a bpffs") as caught:
        libbpf.load(OBJECT_PATH, rodata={}, pin_dir=tmp_path)
    assert caught.value.reason == "capability"


def test_a_missing_or_foreign_object_is_named(tmp_path: Path) -> None:
    path = tmp_path / "other.o"
    with pytest.raises(KernelUnavailable, match="is missing: install the package again"):
        libbpf.load(path, rodata={}, pin_dir=None)
    path.write_bytes(b"no object")
    with pytest.raises(KernelUnavailable, match="no BPF object that libbpf can read") as caught:
        libbpf.load(path, rodata={}, pin_dir=None)
    assert caught.value.reason == "object"
    assert "libbpf: elf" in caught.value.log


def test_a_program_that_the_verifier_refuses_comes_with_its_log(tmp_path: Path) -> None:
    """Turns the first exit of a program into a jump behind its end."""
    data = OBJECT_PATH.read_bytes()
    broken = tmp_path / "broken.o"
    broken.write_bytes(data.replace(bytes.fromhex("9500000000000000"), bytes(8)))
    with pytest.raises(KernelUnavailable, match=r"needs Linux 5\.10 or newer") as caught:
        libbpf.load(broken, rodata={}, pin_dir=None)
    assert caught.value.reason == "kernel"
    assert "BEGIN PROG LOAD LOG" in caught.value.log
    assert "END PROG LOAD LOG" in caught.value.log


def test_a_field_that_the_program_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match=r"no \['colour'\]"):
        libbpf.load(OBJECT_PATH, rodata={"colour": 1}, pin_dir=None)


LOAD = (
    "from raft_agent.kernel import OBJECT_PATH, libbpf\n"
    "try: libbpf.load(OBJECT_PATH, rodata={}, pin_dir=None).close(); print('loaded')\n"
    "except libbpf.KernelUnavailable as error: print(error.reason, error)\n"
)


def load_with(*capabilities: str) -> str:
    """What a process says that has no other capabilities."""
    wanted = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    command = ["setpriv", f"--bounding-set={wanted}", sys.executable, "-c", LOAD]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    return done.stdout


def test_three_capabilities_are_enough() -> None:
    assert load_with("bpf", "net_admin", "perfmon") == "loaded\n"


@pytest.mark.parametrize("missing", ["bpf", "net_admin", "perfmon"])
def test_the_capability_that_is_missing_is_named(missing: str) -> None:
    said = load_with(*({"bpf", "net_admin", "perfmon"} - {missing}))
    assert said.startswith("capability ")
    assert f"without CAP_{missing.upper()}: run as root, or give the process" in said


def test_a_map_refuses_keys_and_values_of_the_wrong_size() -> None:
    loaded = harness.load()
    faults = loaded.map("faults")
    with pytest.raises(ValueError, match="a key of faults has 20 bytes, not 3"):
        faults.lookup(b"abc")
    with pytest.raises(ValueError, match="a value of faults has 24 bytes, not 3"):
        faults.update(bytes(20), b"abc")
    assert faults.lookup(bytes(20)) is None
    assert not faults.delete(bytes(20))
    faults.update(bytes(20), bytes(24))
    assert list(faults.items()) == [(bytes(20), bytes(24))]
    assert faults.delete(bytes(20))
    loaded.close()
    loaded.close()
