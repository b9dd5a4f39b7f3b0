#!/usr/bin/env bash
# A Docker Engine for tests where none runs: Debian's docker.io on a socket and a data folder of its own.
#
#   eval "$(docker/engine.sh start)"    start one unless `docker info` answers; sets DOCKER_HOST and PATH
#   docker/engine.sh stop               stop it and delete all that it stored
#
# Exit codes: 0 done, 2 something to mend, 3 this machine cannot have one (it says why).
set -euo pipefail

root=${AFFECTFLOW_DOCKER_ROOT:-/var/tmp/affectflow-docker}
socket=$root/docker.sock
wanted_gb=${AFFECTFLOW_DOCKER_GB:-20}

cannot() { echo "no Docker Engine here: $1" >&2; exit 3; }

start() {
    if [ -z "${AFFECTFLOW_OWN_ENGINE:-}" ] && docker info >/dev/null 2>&1; then
        echo "an engine runs already" >&2
        return
    fi
    [ "$(id -u)" = 0 ] || cannot "got user $(id -un), wanted root or an engine that answers"
    mkdir -p "$root"
    free_gb=$(($(df --output=avail -k "$root" | tail -1) / 1024 / 1024))
    [ "$free_gb" -ge "$wanted_gb" ] || cannot "got $free_gb GB free in $root, wanted $wanted_gb"
    if ! [ -x /usr/sbin/dockerd ]; then
        command -v apt-get >/dev/null || cannot "got neither dockerd nor apt-get, wanted Debian's docker.io"
        echo "installing docker.io" >&2
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            docker.io debootstrap; } >"$root/apt.log" 2>&1 || cannot "apt-get failed; see $root/apt.log"
    fi
    if ! DOCKER_HOST=unix://$socket /usr/bin/docker info >/dev/null 2>&1; then
        # No bridge: builds and runs use the host's network.
        setsid /usr/sbin/dockerd --host "unix://$socket" --data-root "$root/data" --exec-root "$root/exec" \
            --pidfile "$root/pid" --bridge none --iptables=false >"$root/log" 2>&1 </dev/null &
        for _ in $(seq 60); do
            DOCKER_HOST=unix://$socket /usr/bin/docker info >/dev/null 2>&1 && break
            sleep 0.5
        done
        DOCKER_HOST=unix://$socket /usr/bin/docker info >/dev/null 2>&1 || cannot "dockerd did not start; see $root/log"
    fi
    echo "export DOCKER_HOST=unix://$socket PATH=/usr/bin:\$PATH"
}

stop() {
    if [ -f "$root/pid" ]; then
        pid=$(cat "$root/pid")
        kill "$pid" 2>/dev/null || true
        for _ in $(seq 60); do
            kill -0 "$pid" 2>/dev/null || break
            sleep 0.5
        done
    fi
    # Containers leave mounts behind, of their networks above all.
    awk -v root="$root/" 'index($2, root) == 1 {print $2}' /proc/mounts | sort -r | while read -r mount; do
        umount "$mount" || true
    done
    rm -rf "$root"
}

case "${1:-}" in
    start) start ;;
    stop) stop ;;
    *) echo "error: engine.sh: got '${1:-}', wanted start or stop; see its first lines" >&2; exit 2 ;;
esac
