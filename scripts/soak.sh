#!/usr/bin/env bash
# Holds 500 keep-alive clients on the demo site over each protocol in turn, with reloads meanwhile, and counts errors.
#
# usage: scripts/soak.sh [SECONDS [CLIENTS [RELOADS]]]     default: 60 500 20
# TIDEGATE_BIN_DIR names the folder of the binaries (default: target/release).
set -euo pipefail

seconds=${1:-60} clients=${2:-500} reloads=${3:-20}
bin=$(realpath "${TIDEGATE_BIN_DIR:-target/release}")
work=$(mktemp -d)
pid=

stop() {
    if [ -n "$pid" ] && kill -TERM "$pid" 2>/dev/null; then wait "$pid" || true; fi
    rm -rf "$work"
}
trap stop EXIT

site() { # $1: a number that makes this version of the file differ from the one before
    cat > "$work/site.yaml" <<YAML
listeners:
  - { name: plain, address: "127.0.0.1:0", h2c: true, default_site: demo }
  - { name: secure, address: "127.0.0.1:0", tls: {}, default_site: demo }
sites:
  - name: demo
    hosts: [localhost]
    tls: internal
    routes:
      - { path: "= /version", respond: { status: 200, body: "$1" } }
      - { path: /, proxy: app }
upstreams:
  app:
    workers: { command: [$bin/upstream-demo, --uds, "{socket}"], count: 4, ready: { http: /healthz } }
logging: { access: { to: $work/access.log } }
server: { state_dir: $work/state, runtime_dir: $work/run }
YAML
}

wait_for() { # command...
    for _ in $(seq 100); do "$@" >/dev/null 2>&1 && return; sleep 0.1; done
    echo "error: not within 10 s: $*" >&2
    cat "$work/log" >&2
    exit 1
}

listener() {
    "$bin/tidegate" status -c "$work/site.yaml" --format json |
        python3 -c "import json, sys; print(next(l['address'] for l in json.load(sys.stdin)['listeners'] if l['name'] == '$1'))"
}

ready() { curl -sf --unix-socket "$work/run/admin.sock" http://localhost/readyz; }

site 0
"$bin/tidegate" run -c "$work/site.yaml" 2> "$work/log" &
pid=$!
wait_for ready
plain=$(listener plain) secure=$(listener secure)
errors=0

round() { # label, h2load options...
    local label=$1 report=$work/report
    shift
    h2load -D "$seconds" -c "$clients" "$@" > "$report" 2>&1 &
    local load=$! done=0
    for _ in $(seq "$reloads"); do
        sleep "$(python3 -c "print($seconds / ($reloads + 1))")"
        version=$((version + 1))
        site "$version"
        "$bin/tidegate" reload -c "$work/site.yaml" > "$work/reload" 2>&1 && done=$((done + 1)) || cat "$work/reload"
    done
    wait "$load"
    local line
    line=$(grep '^requests:' "$report")
    printf '%-16s %s; reloads: %d of %d\n' "$label" "${line#requests: }" "$done" "$reloads"
    local bad
    bad=$(sed -E 's/.* ([0-9]+) failed, ([0-9]+) errored, ([0-9]+) timeout.*/\1 \2 \3/' <<< "$line" | tr ' ' '\n' | awk '{ s += $1 } END { print s }')
    local other
    other=$(grep '^status codes:' "$report" | sed -E 's/.* ([0-9]+) 3xx, ([0-9]+) 4xx, ([0-9]+) 5xx.*/\1 \2 \3/' | tr ' ' '\n' | awk '{ s += $1 } END { print s }')
    errors=$((errors + bad + other + reloads - done))
}

version=0
round "HTTP/1.1" --h1 "http://$plain/"
round "h2c" -m 4 "http://$plain/"
round "HTTP/2 on TLS" -m 4 "https://$secure/"
round "HTTP/1.1 on TLS" --h1 "https://$secure/"

echo "errors: $errors"
[ "$errors" -eq 0 ]
