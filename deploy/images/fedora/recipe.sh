#!/bin/sh
# Makes a Fedora root file system and writes it to standard output as a tar archive. Never run yet: see `untried`.
#
# In (environment): RELEASE (a number, or rawhide), PACKAGES, MIRROR (the archive: `--mirror`). Runs as root on x86_64.
set -eu
umask 022
: "${MIRROR:?choose an archive of Fedora with --mirror}"

work=$(mktemp -d -p /var/tmp)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
mkdir -p "$root"
case $RELEASE in
  rawhide) tree=$MIRROR/development/rawhide ;;
  *) tree=$MIRROR/releases/$RELEASE ;;
esac

# shellcheck disable=SC2086  # PACKAGES is a list
dnf -y --installroot "$root" --releasever "$RELEASE" --repofrompath "fedora,$tree/Everything/x86_64/os/" --repo fedora \
  --setopt=install_weak_deps=False --setopt=tsflags=nodocs \
  install bash busybox coreutils fedora-release hostname kernel-core kmod shadow-utils util-linux $PACKAGES >&2
mkdir -p "$root/boot"
cp "$root/usr/sbin/busybox" "$root/boot/busybox"

chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash build
echo 'build ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/build"
chmod 0440 "$root/etc/sudoers.d/build"
echo build >"$root/etc/hostname"
: >"$root/etc/machine-id"
rm -f "$root/etc/resolv.conf"
: >"$root/etc/resolv.conf"
tar -C "$root" --numeric-owner -c .
