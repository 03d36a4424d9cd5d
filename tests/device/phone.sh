# phone.sh ROOT STATE: mount an arm64 phone's file system and stay, for commands that enter. Run by emulate.py.
#   ROOT   of arm64, kept and never written
#   STATE  this run's: tmp, sys; files, which lie over the phone's
root=$1 state=$2
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --bind "$state/sys" "$root/sys"
mount -t tmpfs -o mode=755 dev "$root/dev"
for node in null zero full random urandom tty; do
    : >"$root/dev/$node"
    mount --bind "/dev/$node" "$root/dev/$node"
done
mount --bind "$state/tmp" "$root/data/local/tmp"
(cd "$state/files" && find . -type f) | while read -r file; do
    mount --bind "$state/files/$file" "$root/$file"
done
echo ready >"$state/ready"
while sleep 1; do :; done # a shell takes leave of processes that have lost their parent
