#!/usr/bin/env bash
# Writes requirements/*.txt anew from pyproject.toml: the newest versions that its ranges allow, with
# the hashes of every file of a release, so that one lock serves x86_64 and aarch64, Linux and macOS.
set -eu
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"${PYTHON:-python3.11}" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet 'pip-tools>=7.4,<8'

# Settings of this machine (mirrors, local wheels) must not find their way into the lock.
unset PIP_FIND_LINKS PIP_EXTRA_INDEX_URL PIP_INDEX_URL
export PIP_CONFIG_FILE=/dev/null

# pip-compile forgets on which machines an extra asks for something.
conditions='
    s/^helm-python-sdk==[^ ]*/& ; sys_platform == "linux" and platform_machine == "x86_64"/
    s/^atheris==[^ ]*/& ; sys_platform == "linux"/
    s/^mfusepy==[^ ]*/& ; sys_platform == "linux"/
'

compile() {
    local name=$1
    shift
    "$scratch/venv/bin/pip-compile" --quiet --generate-hashes --strip-extras --no-header \
        --allow-unsafe --no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
        --output-file "$scratch/$name.txt" "$@" pyproject.toml
    {
        echo "# Written by \`make lock\` from pyproject.toml; install with pip's --require-hashes."
        sed "s|$scratch/|requirements/|g; /^$/d; /^# The following/d" "$scratch/$name.txt" |
            sed "$conditions"
    } > "requirements/$name.txt"
}

mkdir -p requirements
compile runtime
compile demo --extra tui --constraint "$scratch/runtime.txt"
compile build --only-build-deps --build-deps-for editable
compile dev --extra dev --constraint "$scratch/demo.txt" --constraint "$scratch/build.txt"
compile operator --extra operator --constraint "$scratch/dev.txt"
compile deploy --extra deploy --constraint "$scratch/dev.txt"
# Of the package installer alone: it travels to machines that have none.
{
    echo "# Written by \`make lock\` from pyproject.toml; install with pip's --require-hashes."
    sed -n '/^pip==/,/^    # via/p' "$scratch/deploy.txt" | sed '/^    # via/d'
} > requirements/installer.txt
compile bench --extra bench --constraint "$scratch/runtime.txt"
compile fuzz --extra fuzz --constraint "$scratch/dev.txt"
compile audit --extra audit --constraint "$scratch/dev.txt"
