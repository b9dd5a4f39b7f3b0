#!/usr/bin/env bash
# Make a local stand-in for the base image, where no image registry can be reached: a minimal Debian with Python,
# imported into Docker under the base image's own name. For tests only; the Dockerfile stays as it is for users.
set -euo pipefail
name=${1:?usage: base_standin.sh IMAGE_NAME}

command -v debootstrap >/dev/null || { echo "error: debootstrap: got no such command, wanted it installed; apt-get install debootstrap" >&2; exit 2; }
folder=$(mktemp -d "${TMPDIR:-/var/tmp}/affectflow-base.XXXXXX")
trap 'rm -rf "$folder"' EXIT

debootstrap --variant=minbase --include=python3,python3-pip,python3-venv,ca-certificates bookworm "$folder" >"$folder.log" 2>&1 \
    || { tail -5 "$folder.log" >&2; exit 1; }
rm -f "$folder.log" "$folder"/usr/lib/python3*/EXTERNALLY-MANAGED
rm -rf "$folder"/var/cache/apt/* "$folder"/var/lib/apt/lists/* "$folder"/usr/share/{doc,man,locale}/*
# What this machine trusts, so that pip in a build reaches what pip reaches here.
bundle=${PIP_CERT:-/etc/ssl/certs/ca-certificates.crt}
cp "$bundle" "$folder/etc/ssl/certs/ca-certificates.crt"
tar -C "$folder" -c . | docker import --change "ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt" - "$name"
