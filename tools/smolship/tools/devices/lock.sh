# Who is still there, by the files in which they left their number, the machine's boot_id and their start: the lock of a
# run, and what says that a runner lives. For supervise.sh, and for what cleans. For any POSIX shell.

# When a process began, as the kernel counts: another one may have its number by now. Its name may hold anything.
began() {
  read -r stat 2>/dev/null <"/proc/$1/stat" || return
  set -- ${stat##*) }
  [ "$1" = Z ] || echo "${20}" # one that has ended, and that nobody waited for
}

# FILE: whether the process that it names is there; then $holder is its number and $owner what else it says.
held() {
  holder='' since='' owner=''
  read -r holder since owner 2>/dev/null <"$1"
  [ "$since" = "$boot" ] || return
  since=${owner##* } owner=${owner% *}
  [ -n "$since" ] && [ "$(began "$holder")" = "$since" ]
}

boot=none
read -r boot 2>/dev/null </proc/sys/kernel/random/boot_id
