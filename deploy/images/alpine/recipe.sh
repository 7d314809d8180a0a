#!/bin/sh
# Makes an Alpine root file system and writes it to standard output as a tar archive. Never run yet: see `untried`.
#
# In (environment): BRANCH (edge, v3.22), ARCHITECTURE (Alpine's name), PACKAGES, MIRROR (the archive: `--mirror`).
# Runs as root on a host of the same architecture.
set -eu
umask 022
: "${MIRROR:?choose an archive of Alpine Linux with --mirror}"

work=$(mktemp -d -p /var/tmp)
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root
mkdir -p "$root/etc/apk" "$work/tools"

# The package manager and the keys it trusts come from the archive itself: it must be reached by https.
index=$(curl --fail --silent --show-error "$MIRROR/$BRANCH/main/$ARCHITECTURE/")
for package in apk-tools-static alpine-keys; do
  file=$(echo "$index" | grep -o "$package-[0-9][^\"<>]*\.apk" | head -n 1)
  curl --fail --silent --show-error "$MIRROR/$BRANCH/main/$ARCHITECTURE/$file" | tar -C "$work/tools" -xz
done
printf '%s\n' "$MIRROR/$BRANCH/main" "$MIRROR/$BRANCH/community" >"$root/etc/apk/repositories"

# shellcheck disable=SC2086  # PACKAGES is a list
"$work/tools/sbin/apk.static" --arch "$ARCHITECTURE" --root "$root" --keys-dir "$work/tools/etc/apk/keys" \
  --repositories-file "$root/etc/apk/repositories" --initdb --no-progress \
  add alpine-base alpine-keys busybox-static linux-virt $PACKAGES >&2
cp "$root/bin/busybox.static" "$root/boot/busybox"
gunzip -r "$root/lib/modules"
chroot "$root" depmod "$(ls "$root/lib/modules")"

chroot "$root" adduser -D -u 1000 -s /bin/bash build
mkdir -p "$root/etc/sudoers.d"
echo 'build ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/build"
chmod 0440 "$root/etc/sudoers.d/build"
echo build >"$root/etc/hostname"
: >"$root/etc/resolv.conf"
tar -C "$root" --numeric-owner -c .
