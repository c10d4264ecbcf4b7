#!/bin/bash
# Installs the Debian packages whose command is missing on this machine, and nothing when all are there.
#
#   scripts/system-packages.sh NEED...
#
# A NEED is one of the names in package_of below. Exit 1, naming the packages, when they cannot be installed.
set -euo pipefail

# The command alone does not prove that a need is met: Debian splits python3 from its venv module, and
# a compiler from the C library's headers.
met() {
    case $1 in
        cc) echo '#include <stdlib.h>' | cc -E - >/dev/null 2>&1 ;;
        venv) python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ;;
        *) PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null 2>&1 ;;
    esac
}

package_of() {
    case $1 in
        cc) echo gcc libc6-dev ;;
        venv) echo python3-venv ;;
        h2load) echo nghttp2-client ;;
        node) echo nodejs ;;
        cmake | curl | haproxy | nginx | openssl | puma | python3 | slowhttptest | strace | valgrind | wrk) echo "$1" ;;
        *) echo "system-packages: unknown need: $1" >&2; exit 2 ;;
    esac
}

give_up() {
    echo "error: $1; install these packages and run make again: ${packages[*]}" >&2
    exit 1
}

# Runs a command as root. Without a terminal sudo must not ask for a password; commands below get no input of their own,
# so this is asked once.
if [ -t 0 ]; then terminal=1; else terminal=; fi
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif [ -n "$terminal" ]; then
        sudo "$@"
    else
        sudo -n "$@"
    fi
}

apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120 "$@" </dev/null
}

# Debian starts a server the moment its package is installed, on ports a developer's machine may be using,
# and again at each boot. The bench needs only the programs.
without_services() {
    local policy=/usr/sbin/policy-rc.d
    if [ ! -e $policy ]; then
        as_root sh -c "printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy"
        trap "as_root rm -f $policy" EXIT
    fi
    "$@" || return
    if [ -d /run/systemd/system ]; then
        as_root systemctl --quiet disable "${services[@]}" || true
    fi
}

packages=()
services=()
for need in "$@"; do
    if met "$need"; then continue; fi
    read -ra names <<<"$(package_of "$need")"
    packages+=("${names[@]}")
    case $need in haproxy | nginx) services+=("$need") ;; esac
done
if [ ${#packages[@]} = 0 ]; then exit 0; fi

command -v apt-get >/dev/null || give_up "apt-get is not on this machine"
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || give_up "not root, and sudo is not on this machine"
fi

echo "installing ${packages[*]}"
install=(apt install -y --no-install-recommends "${packages[@]}")
if [ ${#services[@]} -gt 0 ]; then install=(without_services "${install[@]}"); fi
apt update || echo "warning: the package lists could not be refreshed; trying with those present" >&2
"${install[@]}" >/dev/null || give_up "apt-get could not install what is missing"
for need in "$@"; do
    met "$need" || give_up "'$need' is still missing after the installation"
done
