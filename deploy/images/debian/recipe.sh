#!/bin/sh
# Makes a root file system of Debian packages with a kernel and a busybox in /boot, and writes it to standard output as a
# tar archive.
#
# In (environment): SUITE, ARCHITECTURE (Debian's name), KERNEL (a kernel metapackage), PACKAGES (separated by spaces),
#   VARIANT (minbase: a Debian system; extract: the packages' files alone, made in seconds for any architecture),
#   FINISH (optional: a script for sh -eu that is run last, $1 is the root),
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

# apt inside mmdebstrap reads nothing of the host's configuration, so what is set there is handed on: a proxy, and that
# the mirror may lag behind.
adopt_settings() {
  lag=
  command -v apt-config >/dev/null || return 0
  eval "$(apt-config shell proxy Acquire::http::Proxy valid Acquire::Check-Valid-Until/b)"
  if [ -z "${http_proxy:-}" ] && [ -n "${proxy:-}" ] && [ "$proxy" != DIRECT ]; then export http_proxy="$proxy"; fi
  if [ "${valid:-true}" = false ]; then lag=--aptopt='Acquire::Check-Valid-Until "false"'; fi
}

# Bare packages know nothing of a merged /usr: the links are there before them.
merge_usr() {
  root=$1
  for directory in bin sbin lib lib64; do
    mkdir -p "$root/usr/$directory"
    ln -s "usr/$directory" "$root/$directory"
  done
}

# The kernel is unpacked, not installed: its package would drag in an initramfs generator, udev and systemd, and spend
# seconds on an initrd that nobody boots. The metapackage leads to the newest; since 7.x it is in several packages.
unpack_boot() {
  root=$1
  export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
  mkdir -p "$root/boot" "$root/var/tmp"
  cd "$root/var/tmp"
  # shellcheck disable=SC2046  # a list
  apt-get -q -o APT::Sandbox::User=root download busybox-static \
    $(apt-cache depends --recurse --important "$KERNEL" | grep -E '^linux-(base|image|binary|modules)-[0-9]')
  for package in linux-*.deb; do
    dpkg-deb --fsys-tarfile "$package" | tar -C "$root" --keep-directory-symlink --exclude=./usr/share -x
  done
  dpkg-deb --fsys-tarfile busybox-static_*.deb | tar --wildcards -xO '*bin/busybox' >"$root/boot/busybox"
  rm linux-*.deb busybox-static_*.deb
  release=$(ls "$root/lib/modules")
  if [ -e "$root/lib/modules/$release/vmlinuz" ]; then
    mv "$root/lib/modules/$release/vmlinuz" "$root/boot/vmlinuz-$release"
  fi
  if [ "$VARIANT" = extract ]; then busybox depmod -b "$root" "$release"; else chroot "$root" depmod "$release"; fi
}

# No maintainer script has run: what they would have done and a guest needs is done here.
finish_extracted() {
  root=$1
  mkdir -p "$root/home/build" "$root/root" "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/etc/sudoers.d"
  chown 1000:1000 "$root/home/build"
  chmod 0700 "$root/root"
  chmod 1777 "$root/tmp" "$root/var/tmp"
  printf 'root:x:0:0:root:/root:/bin/sh\nbuild:x:1000:1000::/home/build:/bin/bash\n' >"$root/etc/passwd"
  printf 'root:x:0:\ntty:x:5:\nbuild:x:1000:\n' >"$root/etc/group"
  printf 'root:*:1::::::\nbuild:*:1::::::\n' >"$root/etc/shadow"
  chmod 0600 "$root/etc/shadow"
  mkdir -p "$root/etc/pam.d"
  printf '%s required pam_permit.so\n' auth account session >"$root/etc/pam.d/sudo"
  install -m 0755 "$root/boot/busybox" "$root/usr/bin/busybox"
  # The guest's own can't be asked when it is of another architecture.
  for applet in $(busybox --list); do
    if [ ! -e "$root/usr/bin/$applet" ]; then ln -s busybox "$root/usr/bin/$applet"; fi
  done
  # git draws in perl for what no build here asks of it.
  rm -rf "$root"/usr/bin/perl* "$root"/usr/share/perl* "$root"/usr/lib/*/perl* "$root"/usr/lib/*/libperl* \
    "$root"/usr/lib/*/gconv "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale
  # Where this host can run the guest's Python, the agent need not compile the library at each boot: some 0.7 s.
  library=$(cd "$root" && echo usr/lib/python3.*)
  chroot "$root" /usr/bin/python3 -m compileall -q -l "/$library" "/$library/collections" "/$library/encodings" \
    "/$library/json" "/$library/re" || true
}

# What every guest of ours has in common: the user of the builds, who may become root, and no trace of this host.
settle() {
  root=$1
  if [ "$VARIANT" = extract ]; then
    finish_extracted "$root"
  else
    chroot "$root" useradd --create-home --uid 1000 --shell /bin/bash build
  fi
  echo 'build ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/build"
  chmod 0440 "$root/etc/sudoers.d/build"
  # Who commits, as on builds.sr.ht: a build may have to.
  printf '[user]\n\tname = Leveret\n\temail = build@localhost\n' >"$root/home/build/.gitconfig"
  chown 1000:1000 "$root/home/build/.gitconfig"
  printf '[user]\n\tname = build\n\temail = build@localhost\n' >"$root/home/build/.gitconfig"
  chown 1000:1000 "$root/home/build/.gitconfig"
  echo build >"$root/etc/hostname"
  printf '127.0.0.1 localhost build\n::1 localhost ip6-localhost\n' >"$root/etc/hosts"
  rm -f "$root/etc/resolv.conf" "$root/etc/dpkg/dpkg.cfg.d/99mmdebstrap"
  : >"$root/etc/resolv.conf"
  : >"$root/etc/machine-id"
  if [ -n "${FINISH:-}" ]; then sh -euc "$FINISH" finish "$root"; fi
}

make_root() {
  for keyring in /usr/share/keyrings/debian-archive-keyring.*; do
    if [ ! -e "$keyring" ]; then
      echo 'recipe: the keys of the Debian archive are missing: install the package debian-archive-keyring' >&2
      exit 1
    fi
  done
  adopt_settings
  export KERNEL VARIANT
  # mmdebstrap's own copy of the tree goes where there is room: /tmp is memory on Debian 13.
  export TMPDIR=/var/tmp
  recipe=$(realpath "$0")
  lines=$(sources)
  set --
  if [ -n "$lines" ]; then set -- "$lines"; fi
  if [ -n "$lag" ]; then set -- "$@" "$lag"; fi
  last=customize
  if [ "$VARIANT" = extract ]; then
    last=extract
    set -- "$@" --setup-hook="sh -eu '$recipe' merge-usr \"\$1\""
  fi
  exec mmdebstrap --mode=root --variant="$VARIANT" --format=tar --architectures="$ARCHITECTURE" \
    --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --include="$(echo "$PACKAGES" | tr ' ' ',')" \
    --$last-hook="sh -eu '$recipe' unpack-boot \"\$1\"" --$last-hook="sh -eu '$recipe' settle \"\$1\"" \
    "$SUITE" - "$@"
}

case ${1:-make} in
  make) make_root ;;
  print-sources) sources ;;
  merge-usr) merge_usr "$2" ;;
  unpack-boot) unpack_boot "$2" ;;
  settle) settle "$2" ;;
  *) echo "recipe: unknown word $1" >&2; exit 2 ;;
esac
