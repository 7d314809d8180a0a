#!/bin/sh
# Makes an Arch Linux root file system and writes it to standard output as a tar archive. Never run yet: see `untried`.
#
# In (environment): PACKAGES, MIRROR (the archive: `--mirror`). Runs as root on x86_64; pacman's keyring must know Arch's keys.
set -eu
umask 022
: "${MIRROR:?choose an archive of Arch Linux with --mirror}"

work=$(mktemp -d -p /var/tmp)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
mkdir -p "$root"
cat >"$work/pacman.conf" <<CONF
[options]
Architecture = x86_64
SigLevel = Required DatabaseOptional
[core]
Server = $MIRROR/\$repo/os/\$arch
[extra]
Server = $MIRROR/\$repo/os/\$arch
CONF

# shellcheck disable=SC2086  # PACKAGES is a list
pacstrap -C "$work/pacman.conf" -M "$root" base busybox linux $PACKAGES >&2
mkdir -p "$root/boot"
cp "$root/usr/bin/busybox" "$root/boot/busybox"
find "$root/usr/lib/modules" -name '*.ko.zst' -exec zstd -q -d --rm {} +
depmod -b "$root" "$(ls "$root/usr/lib/modules")"

chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash build
echo 'build ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/build"
chmod 0440 "$root/etc/sudoers.d/build"
echo build >"$root/etc/hostname"
: >"$root/etc/machine-id"
rm -f "$root/etc/resolv.conf"
: >"$root/etc/resolv.conf"
tar -C "$root" --numeric-owner -c .
