# board.sh ROOT STATE CPU NAME: mount the board's file system and become its sshd. Run by emulate.py.
#   ROOT   of arm64, kept and never written
#   STATE  this run's: home, tmp, sys, vcgencmd; ssh for the server's files; files, which lie over the board's
root=$1 state=$2 cpu=$3 name=$4
. "${0%/*}/root.sh"
mount_root
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
mount -t tmpfs -o mode=755 run "$root/run"
mkdir "$root/run/sshd" "$root/run/board" "$root/run/vcgencmd"
mount --bind "$state/ssh" "$root/run/board"
mount --bind "$state/vcgencmd" "$root/run/vcgencmd"
mount --bind "$state/home" "$root/home"
mount --bind "$state/tmp" "$root/tmp"
mount -t tmpfs vartmp "$root/var/tmp"
mount_files
hostname "$name"
cd /
exec env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin QEMU_CPU="$cpu" \
    chroot "$root" /usr/sbin/sshd -D -e -f /run/board/sshd_config
