#!/usr/bin/env bash
# Installs Leveret's services on a host with systemd, upgrades them, or takes them away again.
#
#   install.sh install WHEEL [intake] [dispatcher] [logsink] [notifier] [worker@NAME]...
#   install.sh remove [--purge]
#
# install: lays a virtual environment, units, users, configuration (never over what is there) and a place for secrets. It
#   starts and restarts nothing, and says what to do next. Without services it upgrades those that are here.
# remove: stops the services, a worker when its builds are over, and removes environment, units and commands; --purge
#   also configuration, secrets, logs, images and users.
#
# Packages come from where pip is told to look. On a host that reaches no index, set PIP_NO_INDEX=1 PIP_FIND_LINKS=DIR,
# with all of `pip download 'leveret[intake,…] @ file://…'` in DIR.
set -euo pipefail
export LC_ALL=C.UTF-8
umask 022

readonly home=/opt/leveret          # an environment for each wheel, and a link `current`
readonly configuration=/etc/leveret
readonly units=/usr/local/lib/systemd/system
readonly commands=/usr/local/bin
readonly central=(logsink notifier dispatcher intake)   # in the order of an upgrade: readers before writers

say() { echo "install.sh: $*"; }
die() { echo "install.sh: $*" >&2; exit 1; }
usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; }

unit_of() { if [[ $1 == worker ]]; then echo leveret-worker@.service; else echo "leveret-$1.service"; fi; }

# The services that this host has.
installed() {
  local service
  for service in "${central[@]}" worker; do
    [[ ! -e $units/$(unit_of "$service") ]] || echo "$service"
  done
}

check_host() {
  ((EUID == 0)) || die "this needs root"
  command -v systemctl >/dev/null || die "this host has no systemd"
}

check_python() {
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || die "python3 must be 3.11 or newer"
  python3 -c 'import ensurepip, venv' 2>/dev/null || die "python3 lacks venv: install the package python3-venv"
}

# An environment is never changed while something may run from it: another wheel, or another service, is another one.
make_environment() { # WHEEL SERVICE...
  local wheel version extras target previous old
  wheel=$(realpath "$1"); shift
  version=${wheel##*/leveret-}
  extras=$(IFS=,; echo "$*")
  target=$home/${version%%-*}-$({ cat "$wheel"; echo "$extras"; } | sha256sum | cut -c-12)
  if [[ ! -e $target/.complete ]]; then
    say "installing leveret[$extras] into $target"
    mkdir -p "$home"
    python3 -m venv --clear "$target"
    "$target/bin/python" -m pip --disable-pip-version-check --quiet install "leveret[$extras] @ file://$wheel"
    touch "$target/.complete"
  fi
  previous=$(readlink "$home/current" || true)
  ln -sfn "$target" "$home/current.new"
  mv -T "$home/current.new" "$home/current"
  # What runs goes on from the environment it was started in, which so stays until the next time.
  for old in "$home"/*/; do
    old=${old%/}
    [[ $old == "$target" || $old == "$previous" || -L $old ]] || rm -rf "$old"
  done
}

laid() { # what lies in `deploy` of the installed wheel
  local found=("$home"/current/lib/python3*/site-packages/leveret_deploy)
  echo "${found[0]}"
}

lay_service() { # SERVICE
  local deploy tool
  deploy=$(laid)
  [[ ! -e $deploy/systemd/leveret-$1.sysusers ]] || systemd-sysusers "$deploy/systemd/leveret-$1.sysusers"
  install -D -m 0644 -t "$units" "$deploy/systemd/$(unit_of "$1")"
  install -d -m 0755 "$configuration"
  install -d -m 0700 "$configuration/credentials"
  if [[ ! -e $configuration/$1.yaml ]]; then
    install -m 0644 "$deploy/config/$1.yaml" "$configuration/$1.yaml"
  fi
  mkdir -p "$commands"
  for tool in "leveret-$1" leveret $([[ $1 != worker ]] || echo leveret-image); do
    ln -sfn "$home/current/bin/$tool" "$commands/$tool"
  done
}

# Keys that this installation makes up itself. Nobody else knows them: they are to be kept.
make_key() { # SERVICE KEY
  local file=$configuration/credentials/$1/$2
  [[ ! -e $file ]] || return 0
  (umask 077; head -c 32 /dev/urandom | base64 >"$file")
  say "made $file: keep a copy; another $1 needs the same"
}

lay_secrets() { # SERVICE or worker@NAME
  install -d -m 0700 "$configuration/credentials/$1"
  case $1 in
    dispatcher) make_key dispatcher secrets_key ;;
    logsink) make_key logsink link_key ;;
    notifier) make_key notifier signing_key ;;
  esac
}

tell_what_is_next() { # SERVICE or worker@NAME...
  local service key
  for service in "$@"; do
    for key in amqp_url database_url; do
      [[ $service == worker@* && $key == database_url ]] || [[ -s $configuration/credentials/$service/$key ]] ||
        echo "  write $configuration/credentials/$service/$key"
    done
    if systemctl is-active --quiet "leveret-$service"; then
      echo "  systemctl restart leveret-$service"
    else
      echo "  systemctl enable --now leveret-$service"
    fi
  done
}

# What this host runs, in the order of an upgrade.
running() {
  local service directory
  for service in "${central[@]}"; do
    [[ ! -e $units/$(unit_of "$service") ]] || echo "$service"
  done
  for directory in "$configuration"/credentials/worker@*/; do
    [[ ! -d $directory ]] || basename "$directory"
  done
}

install_leveret() {
  local wheel=${1:-} given kinds=() named=()
  shift || true
  [[ $wheel == *.whl && -f $wheel ]] || { usage >&2; die "which wheel? ${wheel:-none was given}"; }
  for given in "$@"; do
    case $given in
      intake | dispatcher | logsink | notifier) kinds+=("$given") ;;
      worker@?*) [[ $given =~ ^worker@[A-Za-z0-9_.-]+$ ]] || die "$given: use letters, digits, and _ . -"; kinds+=(worker) ;;
      *) usage >&2; die "$given is no service" ;;
    esac
  done
  check_host
  check_python
  mapfile -t kinds < <({ installed; (($# == 0)) || printf '%s\n' "${kinds[@]}"; } | sort -u)
  ((${#kinds[@]})) || die "which services? None is installed here yet"
  make_environment "$wheel" "${kinds[@]}"
  for given in "${kinds[@]}"; do lay_service "$given"; done
  for given in "$@"; do lay_secrets "$given"; done
  systemctl daemon-reload
  mapfile -t named < <(running)
  echo "Leveret is installed. What is left to do, in this order:"
  tell_what_is_next "${named[@]}"
}

remove_leveret() {
  local purge=${1:-} file directory
  [[ -z $purge || $purge == --purge ]] || { usage >&2; die "unknown option $purge"; }
  check_host
  if [[ -e $units/leveret-worker@.service ]]; then
    say "workers end when their builds are over, or their drain_limit is"
    systemctl stop 'leveret-worker@*.service'
  fi
  for file in "$units"/leveret-*.service; do
    [[ -e $file ]] || continue
    [[ $file == *@.service ]] || systemctl stop "$(basename "$file")"
    rm "$file"
  done
  rm -f /etc/systemd/system/multi-user.target.wants/leveret-{intake,dispatcher,logsink,notifier,worker@*}.service
  systemctl daemon-reload
  systemctl reset-failed 'leveret-*.service' 2>/dev/null || true
  for file in "$commands"/leveret*; do
    [[ $(readlink "$file" || true) != "$home"/* ]] || rm "$file"
  done
  rm -rf "$home"
  if [[ $purge == --purge ]]; then
    rm -rf "$configuration" /etc/systemd/system/leveret-*.service.d
    for directory in logsink worker; do
      rm -rf "/var/lib/leveret-$directory"
      ! getent passwd "leveret-$directory" >/dev/null || userdel "leveret-$directory"
    done
  else
    say "$configuration and /var/lib/leveret-* stay; remove --purge takes them, too"
  fi
}

case ${1:-} in
  install) install_leveret "${@:2}" ;;
  remove) remove_leveret "${@:2}" ;;
  -h | --help) usage ;;
  *) usage >&2; exit 2 ;;
esac
