#!/bin/busybox sh
# PID 1 of the initrd: reaches the root disk, prepares what a system's init would, and hands over to the image's init.
# Where this fails the kernel panics and the machine ends: the worker sees that at once, with the reason on the console.
# The kernel hands words of its command line that it does not know to this script as environment: `leveret_address`,
# `leveret_gateway` and `leveret_nameserver` where the guest has a network.
set -eu
export PATH=/bin
b=/bin/busybox

fail() {
  echo "leveret: the guest can't start: $1" >/dev/console
  exit 1
}

$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
  [ -e "$module" ] || continue
  $b insmod "$module" || fail "the kernel refuses $module"
done

# The disk is probed while its module is inserted, so it is there, unless the driver is built in and still at it.
tries=0
until [ -b /dev/vda ]; do
  tries=$((tries + 1))
  [ $tries -le 100 ] || fail "there is no disk /dev/vda"
  $b usleep 50000
done
# The disk is thrown away with the machine: nothing has to reach it in any order.
$b mount -t ext4 -o noatime,nobarrier,noinit_itable /dev/vda /root || fail "/dev/vda holds no ext4 file system"

$b mkdir -p /dev/pts /dev/shm /dev/virtio-ports
$b mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
$b mount -t tmpfs -o mode=1777,nosuid,nodev shm /dev/shm
[ -e /dev/fd ] || $b ln -s /proc/self/fd /dev/fd
for link in 0:stdin 1:stdout 2:stderr; do
  [ -e /dev/${link#*:} ] || $b ln -s /proc/self/fd/${link%:*} /dev/${link#*:}
done
# The names udev would give the ports: there is no udev in most guests.
for port in /sys/class/virtio-ports/*; do
  read -r name <"$port/name" 2>/dev/null && [ -n "$name" ] && $b ln -sf "../${port##*/}" "/dev/virtio-ports/$name"
done

$b mount -t tmpfs -o mode=755,nosuid,nodev run /run
$b mkdir -p /run/leveret /run/lock
$b chmod 1777 /run/lock
$b cp /agent.py /run/leveret/agent.py

[ -s /root/etc/hostname ] && $b hostname -F /root/etc/hostname
$b ip link set lo up
if [ -n "${leveret_address:-}" ] && [ -e /sys/class/net/eth0 ]; then
  $b ip address add "$leveret_address" dev eth0
  $b ip link set eth0 up
  $b ip route add default via "$leveret_gateway"
  echo "nameserver $leveret_nameserver" >/root/etc/resolv.conf
fi

. /command
for mount in dev proc sys run; do
  $b mkdir -p "/root/$mount"
  $b mount --move "/$mount" "/root/$mount"
done
exec $b switch_root /root "$@"
