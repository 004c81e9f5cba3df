"""What a board installs runs on its processor: the wheels, the core's tests, an agent.

The processor is qemu's (user mode), and the kernel is this machine's, so it says nothing of speed,
and nothing of the kernel part: tests/kernel/test_kernels.py boots arm64 kernels for that.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.afterwards import Afterwards
from tests.e2e.deploy import images
from tools import bundle

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[3]
QEMU = "/usr/bin/qemu-aarch64-static"
# The kernel is told to have qemu run what begins like an ELF file for aarch64; F: it opens qemu
# now, so that it need not be in the root (Documentation/admin-guide/binfmt-misc.rst). Registrations
# are the whole kernel's, so this one has a name of its own and is taken back.
_MAGIC = (
    r"\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00:"
    r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
)
# $1: the root, $2: the checkout, $3: a name, $4: what is run in there.
_ENTER = rf"""
set -eu
mount --make-rprivate /
ip link set lo up
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2/upper,workdir=$2/work" "$2/root"
cd "$2/root"
for folder in proc dev tmp src; do mkdir -p $folder; done
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs tmpfs tmp
mount --bind "$3" src
mount -o remount,bind,ro src
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
echo ":$4:M::{_MAGIC}:{QEMU}:F" > /proc/sys/fs/binfmt_misc/register
chroot . /bin/bash -euc "$5"
"""
_FORGET = """
exec unshare --mount sh -c '
    cd /proc/sys/fs/binfmt_misc && mount -t binfmt_misc binfmt_misc . && cd . || exit
    [ ! -e "$1" ] || echo -1 > "$1"
' forget "$1"
"""
_INSTALL = """
cd /bundle
/usr/bin/python3 -m venv --without-pip /opt/raft
/opt/raft/bin/python "$(echo pip-*.whl)/pip" install --quiet --no-index --no-cache-dir \
    --find-links . --require-hashes --requirement runtime.txt
/opt/raft/bin/python "$(echo pip-*.whl)/pip" install --quiet --no-index --no-cache-dir --no-deps \
    raft_ebpf-*.whl
/opt/raft/bin/python "$(echo pip-*.whl)/pip" install --quiet --no-index --no-cache-dir --no-deps \
    /bundle/tests/*.whl
# Without its compiled part this one warns, and is slow.
/opt/raft/bin/python -W error -c 'import google_crc32c'
/opt/raft/bin/python -c 'import platform; print(platform.machine())'
/opt/raft/bin/raft-agent --version
"""
# CI: with it a test that is skipped is an error, and this root has no C compiler.
_TEST = """
unset CI
cd /src
export HOME=/tmp PYTHONDONTWRITEBYTECODE=1
/opt/raft/bin/python -m pytest -q -p no:cacheprovider --hypothesis-profile=few \\
    tests/unit/test_wire.py tests/unit/consensus/test_batch.py \\
    tests/unit/consensus/test_elections.py
/opt/raft/bin/python -m tests.sim.run --seeds 1
"""
_SERVE = """
export HOME=/tmp PATH=/opt/raft/bin:$PATH
cat > /tmp/raft.toml <<END
[server]
node_id = "board"
listen_addr = "127.0.0.1:5555"
data_dir = "/tmp/data"
ipc_socket = "/tmp/board.sock"
[cluster]
bootstrap = true
END
raft-agent --config /tmp/raft.toml --check
raft-agent --config /tmp/raft.toml > /tmp/log 2>&1 &
agent=$!
trap 'kill $agent; wait $agent || true' EXIT
until raftctl --socket /tmp/board.sock propose put city Graz; do sleep 0.5; kill -0 $agent; done
raftctl --socket /tmp/board.sock propose get city
raftctl --socket /tmp/board.sock -o json status | tr -d '\\n'
"""
# What the tests import beside the agent, and what that brings.
_TESTERS = (
    "pytest",
    "pluggy",
    "iniconfig",
    "packaging",
    "pygments",
    "hypothesis",
    "sortedcontainers",
)


class Board:
    """An arm64 root of the test's own, over the image."""

    def __init__(self, home: Path) -> None:
        self.home = home
        for folder in ("upper/bundle/tests", "work", "root"):
            (home / folder).mkdir(parents=True)

    def run(self, script: str) -> str:
        """What bash says there; without a network but its own loopback."""
        name = f"rafttest-{os.getpid()}-aarch64"
        forget = Afterwards(_FORGET, name)
        try:
            done = subprocess.run(
                [
                    *("setpriv", "--pdeathsig", "KILL"),
                    *("unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"),
                    *("bash", "-c", _ENTER, "enter"),
                    *(str(images.arm64()), str(self.home), str(ROOT), name, script),
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            forget.run()
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
        return done.stdout


@pytest.fixture(scope="module")
def board(able: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    if not Path(QEMU).exists():
        pytest.skip("qemu-user-static is not installed (tools/setup.sh machines installs it)")
    home = tmp_path_factory.mktemp("arm64")
    made = Board(home)
    out = ROOT / "build" / "deploy"
    packed = bundle.bundle(ROOT, "aarch64", "3.11", out)
    with tarfile.open(packed["file"]) as tar:
        tar.extractall(home / "upper" / "bundle", filter="data")
    lock = _of_the_testers((ROOT / "requirements" / "dev.txt").read_text())
    wheels = bundle.wheels_directory(out, lock, "aarch64", "3.11")
    bundle.fetch_wheels(lock, "aarch64", "3.11", wheels)
    for wheel in wheels.iterdir():
        shutil.copy(wheel, home / "upper" / "bundle" / "tests")
    yield made
    shutil.rmtree(home)


def _of_the_testers(lock: str) -> str:
    entries = re.split(r"^(?=[\w.-]+==)", lock, flags=re.MULTILINE)[1:]
    return "".join(entry for entry in entries if entry.split("==")[0] in _TESTERS)


def test_the_wheelhouse_installs_on_arm64_and_the_core_passes_its_tests_there(board: Board) -> None:
    installed = board.run(_INSTALL)
    assert "aarch64" in installed
    assert "raft-agent" in installed
    tested = board.run(_TEST)
    assert re.search(r"^\d\d+ passed", tested, re.MULTILINE), tested
    served = board.run(_SERVE)
    assert "\nGraz\n" in served
    status = json.loads(served.splitlines()[-1])
    assert (status["role"], status["node_id"]) == ("leader", "board")
