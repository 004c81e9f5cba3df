#!/usr/bin/env bash
# tools/setup.sh demo|dev: makes .venv hold exactly what the lock files say, and the programs of
# this checkout. Does nothing when that is so already. PYTHON=… chooses the interpreter.
# tools/setup.sh deploy: the same for the machine from which the playbooks of ansible/ are run.
# tools/setup.sh bpf|kernels|machines|kube|images|torture: installs what `make bpf`,
# `make test-kernels`, `make test-deploy`, `make test-kube` and `make torture` need.
set -eu
cd "$(dirname "$0")/.."
checkout=$PWD
wanted=$1

say() { printf '%s\n' "$*" >&2; }
fail() { say "setup: $*"; exit 1; }

# Two makes at once must not fill one directory together; pyproject.toml serves as the lock.
exec 9< pyproject.toml
if command -v flock > /dev/null; then flock 9; fi

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@" 2> /dev/null; fi
}

# install_packages PACKAGE…: from Debian, when that is possible here.
install_packages() {
    command -v apt-get > /dev/null || return 1
    say "setup: apt-get install $*"
    as_root apt-get update -qq > /dev/null < /dev/null || return 1
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
        > /dev/null < /dev/null
}

usable_python() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3 python3.12 python3.13 python3.14}; do
        if usable_python "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    return 1
}

can_make_venvs() {
    "$1" -c 'import ensurepip, venv; ensurepip.version()' > /dev/null 2>&1
}

make_venv() {
    local python
    if ! python=$(find_python); then
        install_packages python3 python3-venv || true
        python=$(find_python) ||
            fail "needs Python 3.11 or newer (Debian 12: apt-get install python3 python3-venv)"
    fi
    # Debian splits ensurepip off into python3-venv; without it a venv has no pip.
    if ! can_make_venvs "$python"; then
        { install_packages python3-venv && can_make_venvs "$python"; } ||
            fail "$python can't make virtual environments: run apt-get install python3-venv as root"
    fi
    rm -rf .venv
    "$python" -m venv .venv
}

# Whether the library that raft-agent loads the kernel's program with is there.
has_libbpf() {
    PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2> /dev/null | grep -q 'libbpf\.so\.1'
}

bpf_compiler_missing() {
    command -v clang > /dev/null || echo clang
    command -v llvm-objcopy > /dev/null || echo llvm
    [ -e /usr/include/bpf/bpf_helpers.h ] || echo libbpf-dev
}

# Packages that tests need.
install_if_missing() {
    if [ "$#" != 0 ] && [ "$(uname)" = Linux ]; then
        install_packages "$@" ||
            say "setup: could not install $*; tests that need it will say so"
    fi
}

# dev: what the tests run beside Python. They say so themselves where something is still missing.
install_test_programs() {
    local missing=()
    mapfile -t missing < <(bpf_compiler_missing)
    command -v clang-format > /dev/null || missing+=(clang-format)
    has_libbpf || missing+=(libbpf1)
    command -v ip > /dev/null || missing+=(iproute2)
    command -v ethtool > /dev/null || [ -x /usr/sbin/ethtool ] || missing+=(ethtool)
    command -v strace > /dev/null || missing+=(strace)
    command -v chromium > /dev/null || command -v chromium-browser > /dev/null || missing+=(chromium)
    perl -MIO::Socket::UNIX -MJSON::PP -e 1 2> /dev/null || missing+=(perl)
    install_if_missing "${missing[@]}"
}

# What .venv was made from; the path too, because scripts in it name it.
fingerprint() {
    { echo "$checkout"; cat pyproject.toml "requirements/$1.txt" requirements/build.txt; } |
        cksum
}
is_ready() {
    [ -f ".venv/$1.fingerprint" ] && [ "$(cat ".venv/$1.fingerprint")" = "$(fingerprint "$1")" ] &&
        .venv/bin/python -c '' 2> /dev/null
}

# kernels: qemu, and what links the program that runs in it. Tests say so where it is missing.
install_machines() {
    local missing=()
    command -v qemu-system-x86_64 > /dev/null || missing+=(qemu-system-x86)
    command -v qemu-system-aarch64 > /dev/null || missing+=(qemu-system-arm)
    command -v aarch64-linux-gnu-gcc > /dev/null ||
        missing+=(gcc-aarch64-linux-gnu libc6-dev-arm64-cross)
    command -v gcc > /dev/null || missing+=(gcc libc6-dev)
    [ -e /usr/include/libelf.h ] || missing+=(libelf-dev)
    [ -e /usr/include/zlib.h ] || missing+=(zlib1g-dev)
    [ -e /usr/include/bpf/libbpf.h ] || missing+=(libbpf-dev)
    install_if_missing "${missing[@]}"
}

# machines: what makes and boots whole systems, and reaches them. Tests say so where it is missing.
install_systems() {
    local missing=()
    command -v mmdebstrap > /dev/null || missing+=(mmdebstrap)
    command -v systemd-nspawn > /dev/null || missing+=(systemd-container)
    command -v ssh > /dev/null || missing+=(openssh-client)
    [ -x /usr/bin/qemu-aarch64-static ] || missing+=(qemu-user-static)
    install_if_missing "${missing[@]}"
}

# torture: the network's rules, disks that lose what was not synced, clocks; its virtual machines need
# `kernels` too. Tests say so where it is missing.
install_torture() {
    local missing=()
    command -v nft > /dev/null || [ -x /usr/sbin/nft ] || missing+=(nftables)
    PATH=$PATH:/sbin:/usr/sbin ldconfig -p 2> /dev/null | grep -q 'libfuse3\.so' ||
        missing+=(libfuse3-3)
    [ -x /sbin/mkfs.ext4 ] || missing+=(e2fsprogs)
    command -v gcc > /dev/null || missing+=(gcc libc6-dev)
    install_if_missing "${missing[@]}"
}

# kube: what makes the roots of nodes, and joins them. Kubernetes itself and what runs on the nodes is
# fetched into these roots.
install_node_makers() {
    local missing=()
    command -v mmdebstrap > /dev/null || missing+=(mmdebstrap)
    command -v ip > /dev/null || missing+=(iproute2)
    command -v nsenter > /dev/null || missing+=(util-linux)
    command -v gcc > /dev/null || missing+=(gcc libc6-dev)
    install_if_missing "${missing[@]}"
}

# images: what builds the Containerfile, and makes the root that it begins with.
install_image_builders() {
    local missing=()
    command -v mmdebstrap > /dev/null || missing+=(mmdebstrap)
    command -v buildah > /dev/null || missing+=(buildah)
    install_if_missing "${missing[@]}"
}

case $wanted in
    torture)
        install_torture
        exit 0
        ;;
    images)
        install_image_builders
        exit 0
        ;;
    kube)
        install_node_makers
        exit 0
        ;;
    machines)
        install_systems
        exit 0
        ;;
    kernels)
        install_machines
        exit 0
        ;;
    bpf)
        mapfile -t missing < <(bpf_compiler_missing)
        if [ "${#missing[@]}" != 0 ]; then
            install_packages "${missing[@]}" ||
                fail "make bpf needs ${missing[*]}: install these packages as root"
        fi
        exit 0
        ;;
    demo) if is_ready demo || is_ready dev; then exit 0; fi ;;
    deploy) if is_ready deploy || is_ready dev; then exit 0; fi ;;
    dev)
        install_test_programs
        if is_ready dev; then exit 0; fi
        ;;
    *) fail "usage: tools/setup.sh demo|dev|deploy|bpf|kernels|machines|kube|images|torture" ;;
esac

say "setup: installing into .venv (once)"
if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then make_venv; fi
rm -f .venv/*.fingerprint
# Errors only: pip warns of settings of the machine that have no part in this.
pip=(.venv/bin/python -m pip --disable-pip-version-check install --quiet --quiet)
"${pip[@]}" --require-hashes -r "requirements/$wanted.txt" -r requirements/build.txt
"${pip[@]}" --no-deps --no-build-isolation --editable .
fingerprint "$wanted" > ".venv/$wanted.fingerprint"
