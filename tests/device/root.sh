# For board.sh and phone.sh, which set root and state: an arm64 root's file systems, and this run's files over its own.

mount_root() {
    mount --bind "$root" "$root"
    mount -o remount,bind,ro "$root"
    mount -t proc proc "$root/proc"
    mount --bind "$state/sys" "$root/sys"
    mount -t tmpfs -o mode=755 dev "$root/dev"
    for node in null zero full random urandom tty; do
        : >"$root/dev/$node"
        mount --bind "/dev/$node" "$root/dev/$node"
    done
}

mount_files() {
    (cd "$state/files" && find . -type f) | while read -r file; do
        mount --bind "$state/files/$file" "$root/$file"
    done
}
