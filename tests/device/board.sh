# board.sh ROOT STATE CPU NAME: mount the board's file system and become its sshd. Run by emulate.py.
#   ROOT   of arm64, kept and never written
#   STATE  this run's: home, tmp, sys, vcgencmd; ssh for the server's files; files, which lie over the board's
root=$1 state=$2 cpu=$3 name=$4
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --bind "$state/sys" "$root/sys"
mount -t tmpfs -o mode=755 dev "$root/dev"
for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
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
(cd "$state/files" && find . -type f) | while read -r file; do
    mount --bind "$state/files/$file" "$root/$file"
done
hostname "$name"
cd /
exec env -i PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin QEMU_CPU="$cpu" \
    chroot "$root" /usr/sbin/sshd -D -e -f /run/board/sshd_config
