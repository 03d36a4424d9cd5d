# phone.sh ROOT STATE: mount an arm64 phone's file system and stay, for commands that enter. Run by emulate.py.
#   ROOT   of arm64, kept and never written
#   STATE  this run's: tmp, sys; files, which lie over the phone's
root=$1 state=$2
. "${0%/*}/root.sh"
mount_root
mount --bind "$state/tmp" "$root/data/local/tmp"
mount_files
echo ready >"$state/ready"
while sleep 1; do :; done # a shell takes leave of processes that have lost their parent
