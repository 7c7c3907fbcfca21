#!/usr/bin/env bash
# A Ray cluster of three hosts on this machine, launched by `ray up` from what cluster.yaml says, with Rebu on it.
#
#   scripts/cluster_lab.sh --check    launch, use, break and check it, take all down; exit 0 only if all held
#   scripts/cluster_lab.sh            the same, and go on until Ctrl-C
#
# Each host has a network, a process table, mounts, and an sshd of its own; the first one also runs Redis and
# PostgreSQL; journal and lake are in a folder that all share. Everything lives in namespaces below one process and in
# one folder: both are gone in the end, however it ends. Exit 3: this machine or this user cannot do that.
set -euo pipefail
project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$project"
HOSTS="1 2 3"

cannot() {
    echo "cluster_lab: $*" >&2
    exit 3
}

check_machine() {
    [ "$(uname -s)" = Linux ] || cannot "only Linux has the namespaces that the hosts are made of"
    [ "$(id -u)" = 0 ] || cannot "only root may make network namespaces: run it as root"
    local command missing=()
    for command in unshare ip ssh ssh-keygen rsync /usr/sbin/sshd; do
        command -v "$command" >/dev/null || missing+=("$command")
    done
    [ "${#missing[@]}" = 0 ] || cannot "missing: ${missing[*]} (Debian: apt-get install openssh-server iproute2 rsync)"
    unshare --mount --net --pid --uts --ipc --fork --mount-proc true 2>/dev/null ||
        cannot "namespaces cannot be made here (a container without CAP_SYS_ADMIN?)"
    unshare --mount --net sh -c 'ip link add lab0 type bridge && mount -t tmpfs tmpfs /tmp' 2>/dev/null ||
        cannot "no bridge or no tmpfs can be made in a namespace here"
    local probe
    probe=$(mktemp)
    chown nobody "$probe" 2>/dev/null || { rm -f "$probe" && cannot "this root cannot be anybody else (PostgreSQL has to)"; }
    rm -f "$probe"
    [ -x .venv/bin/rebu ] || cannot "no .venv: run make venv"
}

# What is below /tmp is hidden by a /tmp of its own, but for the project and its .venv.
own_tmp() {
    local kept place venv
    venv=$(realpath .venv)
    for place in "$project" "$venv"; do
        case $place in /tmp/*)
            kept=$work/kept$(echo "$place" | tr / _)
            mkdir -p "$kept"
            mount --bind "$place" "$kept"
            ;;
        esac
    done
    mount -t tmpfs tmpfs /tmp
    for place in "$project" "$venv"; do
        case $place in /tmp/*)
            mkdir -p "$place"
            mount --bind "$work/kept$(echo "$place" | tr / _)" "$place"
            ;;
        esac
    done
    cd "$project"
}

# Process 1 of all: whatever it leaves, the kernel ends with it.
inside() {
    work=$1
    shift
    own_tmp
    ip link set lo up
    ip link add lab0 type bridge
    ip addr add 10.77.0.1/24 dev lab0
    ip link set lab0 up
    local number
    for number in $HOSTS; do
        mkdir -p "$work/host$number"
        unshare --mount --net --pid --uts --ipc --fork --kill-child=KILL --mount-proc \
            "$0" --host "$work" "$number" >"$work/host$number/log" 2>&1 </dev/null &
        echo $! >"$work/host$number/pid"
        until [ "$(readlink "/proc/$!/ns/net")" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.05; done
        ip link add "lab$number" type veth peer name eth0 netns $!
        ip link set "lab$number" master lab0 up
        disown  # one of them will be killed, which needs no telling
    done
    local result=0
    HOME=$work/desk PYTHONPATH=$project .venv/bin/python -m scripts.lab.play "$work" "$@" || result=$?
    exit "$result"
}

# Process 1 of a host.
host() {
    work=$1
    local number=$2
    local home=$work/host$number/home
    hostname "rebu-lab-$number"
    ip link set lo up
    until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
    ip addr add "10.77.0.1$number/24" dev eth0
    ip link set eth0 up
    ip route add default via 10.77.0.1
    own_tmp
    mount -t tmpfs tmpfs /run
    mount -t tmpfs tmpfs /dev/shm
    mkdir -p /run/sshd "$home/rebu"
    sed "s|^root:.*|root:x:0:0:root:$home:/bin/bash|" /etc/passwd >"$work/host$number/passwd"
    mount --bind "$work/host$number/passwd" /etc/passwd
    ln -s "$project/.venv" "$home/rebu/venv"
    ssh-keygen -q -t ed25519 -N '' -f "$work/host$number/hostkey"
    # A login has nothing of the environment here: the code is to be this project's. Three hosts on two cores that do
    # other things as well are slow to start.
    printf 'export PYTHONPATH=%s RAY_raylet_start_wait_time_s=300 RAY_agent_register_timeout_ms=300000\n' "$project" >"$home/.bashrc"
    cp "$home/.bashrc" "$home/.bash_profile"
    /usr/sbin/sshd -D -e -f /dev/null -o "ListenAddress=10.77.0.1$number" -o "HostKey=$work/host$number/hostkey" \
        -o "AuthorizedKeysFile=$work/key.pub" -o StrictModes=no -o UsePAM=no -o PidFile=none -o UseDNS=no \
        -o PermitRootLogin=prohibit-password &
    if [ "$number" = 1 ]; then
        HOME=$home PYTHONPATH=$project .venv/bin/python -m scripts.lab.services "$work" &
    fi
    # Who dies without a parent is buried here.
    while :; do wait -n || sleep 0.2; done
}

case ${1:-} in
--inside) shift && inside "$@" ;;
--host) shift && host "$@" ;;
"" | --check)
    check_machine
    work=$(mktemp -d /var/tmp/rebu-lab.XXXXXX)
    chmod 755 "$work"
    lab=
    clean() {
        [ -z "$lab" ] || kill -KILL "$lab" 2>/dev/null || true
        wait 2>/dev/null || true
        if [ -n "${REBU_LAB_LOGS:-}" ]; then
            mkdir -p "$REBU_LAB_LOGS"
            cp -r "$work"/*.log "$work"/host*/log "$work"/cluster.yaml "$REBU_LAB_LOGS"/ 2>/dev/null || true
        fi
        rm -rf "$work"
    }
    trap clean EXIT
    trap 'kill -INT "$lab" 2>/dev/null; sleep 1; exit 130' INT TERM HUP
    mkdir "$work/shared" "$work/desk"
    ssh-keygen -q -t ed25519 -N '' -f "$work/key"
    unshare --mount --net --pid --uts --ipc --fork --kill-child=KILL --mount-proc \
        "$0" --inside "$work" "$@" </dev/null &
    lab=$!
    result=0
    wait "$lab" || result=$?
    exit "$result"
    ;;
*)
    sed -n '2,9s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
