#!/usr/bin/env bash
# Runs a command in a Debian of scripts/fresh.sh; started by it in mount and process namespaces of its own, so that
# what is mounted here is seen nowhere else and goes away with the last process.
#
#   unshare --mount --pid --fork --kill-child bash scripts/fresh/enter.sh ROOT COMMAND
set -euo pipefail
root=$1 command=$2
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount --rbind /sys "$root/sys"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
for number in 0:stdin 1:stdout 2:stderr; do
    ln -s "/proc/self/fd/${number%:*}" "$root/dev/${number#*:}"
done
chroot "$root" /bin/bash -c "$command"
