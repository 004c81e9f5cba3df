#!/usr/bin/env bash
# Asks for known vulnerabilities of every version that requirements/*.txt lock. Needs the network; the
# tool has an environment of its own in build/audit, so that what it brings is in nobody's way.
set -eu
cd "$(dirname "$0")/.."

python=${PYTHON:-python3.11}
command -v "$python" > /dev/null || python=python3
venv=build/audit
fingerprint=$(cksum < requirements/audit.txt)
if [ "$(cat "$venv/fingerprint" 2> /dev/null)" != "$fingerprint" ]; then
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/pip" install --quiet --quiet --require-hashes -r requirements/audit.txt
    echo "$fingerprint" > "$venv/fingerprint"
fi

locks=()
for lock in requirements/*.txt; do locks+=(--requirement "$lock"); done
status=0
# The same package stands in several locks, and is looked up once.
"$venv/bin/pip-audit" --strict --require-hashes --disable-pip --progress-spinner off \
    --vulnerability-service "${AUDIT_SERVICE:-pypi}" "${locks[@]}" || status=$?
if [ "$status" != 0 ]; then
    echo "audit: not all is known to be well. What has a vulnerability: raise it in pyproject.toml," \
        "then make lock. What could not be asked for: try again where the service can be reached," \
        "or with AUDIT_SERVICE=osv" >&2
fi
exit "$status"
