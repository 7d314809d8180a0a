#!/bin/sh
# Makes a Debian root file system with a kernel in /boot and writes it to standard output as a tar archive.
#
# In (environment): SUITE, ARCHITECTURE (Debian's name), KERNEL (a kernel metapackage), PACKAGES (separated by spaces),
#   MIRROR (optional: the only archive to use; without it the ones this host's own apt uses, else the default of mmdebstrap).
# Out: the archive; progress on standard error. Runs as root, in containers too: no loop mount, no KVM.
# Called as `recipe.sh print-sources` it only says where it would take packages from. The other words are its own hooks.
set -eu
umask 022 # a root file system, whatever the umask of who builds it

# This host's sources of Debian itself (not a third party's), with SUITE in the place of the host's own suite.
host_sources() {
  command -v apt-get >/dev/null || return 0
  # shellcheck disable=SC2016  # apt expands these
  apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk -v suite="$SUITE" '
      BEGIN { rolling = suite ~ /^(sid|unstable)$/ }
      $2 == "main" && match($1, /^(bullseye|bookworm|trixie|forky|sid|oldstable|stable|testing|unstable)(-|$)/) {
        extra = $1; sub(/^[a-z]+/, "", extra); sub(/\/+$/, "", $3)
        if (extra == "" || (!rolling && extra ~ /^-(updates|security)$/)) print "deb", $3, suite extra, "main"
      }' | sort -u
}

# Lines for sources.list; none means mmdebstrap's own default.
sources() {
  if [ -n "${MIRROR:-}" ]; then echo "deb $MIRROR $SUITE main"; else host_sources; fi
}

# apt inside mmdebstrap reads nothing of the host's configuration, so a proxy set there is handed on.
adopt_proxy() {
  if [ -n "${http_proxy:-}" ] || ! command -v apt-config >/dev/null; then return; fi
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  if [ -n "${proxy:-}" ] && [ "$proxy" != DIRECT ]; then export http_proxy="$proxy"; fi
}

# The kernel is unpacked, not installed: its package would drag in an initramfs generator, udev and systemd, and spend
# seconds on an initrd that nobody boots. The metapackage names the newest kernel in its dependencies.
unpack_kernel() {
  root=$1
  export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
  package=$(apt-cache show --no-all-versions "$KERNEL" | sed -n 's/^Depends:.*\(linux-image-[0-9][^ ,]*\).*/\1/p')
  cd "$root/var/tmp"
  apt-get -q -o APT::Sandbox::User=root download "${package:-$KERNEL}"
  dpkg-deb --fsys-tarfile linux-image-*.deb |
    tar -C "$root" --keep-directory-symlink --wildcards -x './boot' '*lib/modules'
  rm linux-image-*.deb
  chroot "$root" depmod "$(ls "$root/lib/modules")"
}

# What every guest of ours has in common: the user of the builds, who may become root, and no trace of this host.
settle() {
  root=$1
  chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash build
  echo 'build ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/build"
  chmod 0440 "$root/etc/sudoers.d/build"
  echo build >"$root/etc/hostname"
  printf '127.0.0.1 localhost build\n::1 localhost ip6-localhost\n' >"$root/etc/hosts"
  rm -f "$root/etc/resolv.conf" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
  : >"$root/etc/resolv.conf"
  : >"$root/etc/machine-id"
}

make_root() {
  for keyring in /usr/share/keyrings/debian-archive-keyring.*; do
    if [ ! -e "$keyring" ]; then
      echo 'recipe: the keys of the Debian archive are missing: install the package debian-archive-keyring' >&2
      exit 1
    fi
  done
  adopt_proxy
  export KERNEL
  # mmdebstrap's own copy of the tree goes where there is room: /tmp is memory on Debian 13.
  export TMPDIR=/var/tmp
  recipe=$(realpath "$0")
  lines=$(sources)
  set --
  if [ -n "$lines" ]; then set -- "$lines"; fi
  exec mmdebstrap --mode=root --variant=minbase --format=tar --architectures="$ARCHITECTURE" \
    --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include="$(echo "$PACKAGES" | tr ' ' ',')" \
    --customize-hook="sh -eu '$recipe' unpack-kernel \"\$1\"" --customize-hook="sh -eu '$recipe' settle \"\$1\"" \
    "$SUITE" - "$@"
}

case ${1:-make} in
  make) make_root ;;
  print-sources) sources ;;
  unpack-kernel) unpack_kernel "$2" ;;
  settle) settle "$2" ;;
  *) echo "recipe: unknown word $1" >&2; exit 2 ;;
esac
