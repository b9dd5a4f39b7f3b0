#!/usr/bin/env bash
# Build the images and run pipelines in them: `make test-containers`. PART=data leaves out all that needs torch.
# Where this machine cannot have a Docker Engine it says so, and that is no failure.
set -euo pipefail
cd "$(dirname "$0")/../.."
export AFFECTFLOW_CONTAINERS=${PART:-all}

status=0
environment=$(docker/engine.sh start) || status=$?
if [ "$status" = 3 ]; then
    echo "container tests are left out"
    exit 0
elif [ "$status" != 0 ]; then
    exit "$status"
fi
eval "$environment"
if [ -n "$environment" ] && [ -z "${KEEP_ENGINE:-}" ]; then
    trap 'docker/engine.sh stop' EXIT
fi

base=$(sed -n 's/^ARG BASE_IMAGE=//p' docker/Dockerfile)
if ! docker image inspect "$base" >/dev/null 2>&1 && ! docker pull "$base" 2>/dev/null; then
    echo "no registry has $base for us: making a stand-in"
    if ! docker/base_standin.sh "$base" >/dev/null; then
        echo "container tests are left out: there is neither a registry nor Debian to take a base image from"
        exit 0
    fi
fi
.venv/bin/python -m pytest -v tests/containers "$@"
