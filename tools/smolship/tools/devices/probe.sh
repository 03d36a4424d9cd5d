# Writes what a device is, for facts.py, behind the sensors' dump.sh and as that does: a line for each line of a text.
#     =NAME<TAB>LINE    a line of a file or of what a command printed, and of answers of our own, whose names are words
#     !NAME<TAB>REASON  there is none, and why
# For dash, busybox's ash, mksh and bash.

# Last, so that nothing of the device's own choice is replaced.
PATH=${PATH:-/usr/bin:/bin}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:/opt/vc/bin:/system/bin:/vendor/bin
case ${HOME-} in /*) PATH=$PATH:$HOME/llama.cpp/build/bin ;; esac
PATH=$PATH:/data/local/tmp/llama.cpp/bin # where llama.cpp's own manual puts it
export PATH
tab=$smolship_tab
say() { smolship_say "$1"; }
# WORD…: whether a shell that is started by these words runs. Loaders and locales may have their say before.
runs() {
  said=$("$@" -c 'echo runs' 2>&1 </dev/null)
  case $said in *runs) ;; *) return 1 ;; esac
}
has() { command -v "$1" >/dev/null 2>&1; }

# NAME: each line of standard input.
lines() {
  while IFS= read -r line || [ -n "$line" ]; do
    say "=$1$tab$line"
    line=
  done
}

# PATH NUMBER: the first bytes of a file, as hexadecimal digits.
bytes() {
  if [ ! -r "$1" ]; then say "!$1${tab}may not be read"; return; fi
  said=
  if has od; then said=$(od -An -v -tx1 -N "$2" "$1" 2>/dev/null | lines "$1"); fi
  if [ -z "$said" ] && has hexdump; then said=$(hexdump -v -n "$2" -e '/1 "%02x "' "$1" 2>/dev/null | lines "$1"); fi
  if [ -z "$said" ] && has xxd; then said=$(xxd -p -l "$2" "$1" 2>/dev/null | lines "$1"); fi
  if [ -n "$said" ]; then say "$said"; else say "!$1${tab}no od, hexdump or xxd in $PATH"; fi
}

# Memory and time of processors that this session may take, by its control groups and those above them, of both
# versions.
groups() {
  unified= legacy= timed=
  while read -r device point kind options rest; do
    case $kind,$options, in
      cgroup2,*) unified=$point ;;
      cgroup,*,memory,*) legacy=$point ;;
      cgroup,*,cpu,*) timed=$point ;;
    esac
  done 2>/dev/null </proc/mounts
  while IFS=: read -r number kinds group; do
    case ,$kinds, in
      ,,) root=$unified names='memory.max memory.high memory.current memory.stat cpu.max' ;;
      *,memory,*) root=$legacy names='memory.limit_in_bytes memory.usage_in_bytes memory.stat' ;;
      *,cpu,*) root=$timed names='cpu.cfs_quota_us cpu.cfs_period_us' ;;
      *) continue ;;
    esac
    group=${group%/}
    while [ -n "$root" ]; do
      for name in $names; do
        [ ! -r "$root$group/$name" ] || smolship_file "$root$group/$name"
      done
      [ -n "$group" ] || break
      group=${group%/*}
    done
  done 2>/dev/null </proc/self/cgroup
}

# FILE: whether the loader of this shell maps a program that lies there, as it maps libraries. Where there is none, or
# it starts no programs by name (old phones), nothing is said against it.
mapped() {
  loader=
  while read -r range rights offset device inode path; do
    case $path in */ld-* | */ld.so* | */ld64.so* | */linker | */linker64) loader=$path; break ;; esac
  done 2>/dev/null </proc/self/maps
  [ -z "$loader" ] || ! runs "$loader" "$shell" || runs "$loader" "$1"
}

# FOLDER: whether a program runs there, and a library can be loaded. Nothing is left of the trial; no folder is made
# below one that is not there.
folder() {
  say "=tried$tab$1"
  case $1 in *[!A-Za-z0-9._/-]*) say "!folder $1${tab}its name has characters that we do not use on devices"; return ;; esac
  made=
  if [ ! -d "$1" ]; then
    if [ ! -d "${1%/*}" ]; then
      [ -d "${1%/*/*}" ] || { say "!folder $1${tab}there is no ${1%/*/*}"; return; }
      case $1 in
        "${HOME-/}"/*/*) made="${1%/*}" ;;
        *) say "!folder $1${tab}there is no ${1%/*}"; return ;;
      esac
    fi
    made="$1 $made"
    if ! said=$(umask 077; mkdir -p "$1" 2>&1); then say "!folder $1${tab}$said"; return; fi
  elif [ ! -O "$1" ]; then
    say "!folder $1${tab}it belongs to another user"; return
  fi
  try=$1/probe-$$
  if ! said=$( (umask 077; mkdir "$try" && cat "$shell" >"$try/sh" && chmod 700 "$try/sh") 2>&1); then
    say "!folder $1${tab}$said"
  elif ! runs "$try/sh"; then
    say "!folder $1${tab}a program that lies there cannot be run: $said"
  elif ! mapped "$try/sh"; then
    say "!folder $1${tab}a library that lies there cannot be loaded: $said"
  else
    say "=folder $1${tab}runs"
  fi
  say "=real $1${tab}$(cd "$1" 2>/dev/null && pwd -P)"
  df -kP "$1" 2>&1 </dev/null | lines "df $1"
  rm -rf "$try"
  for made in $made; do rmdir "$made" 2>/dev/null; done
}

say "=date$tab$(date +%s 2>/dev/null)"
say "=PATH$tab$PATH"
say "=HOME$tab${HOME-}"
shell=/bin/sh
[ -r $shell ] || shell=/system/bin/sh
bytes $shell 2048 | while IFS= read -r line; do
  case $line in "=$shell$tab"*) say "=elf${line#"=$shell"}" ;; *) say "!elf${line#"!$shell"}" ;; esac
done
# What runs this shell by the kernel's own account: a user-mode emulator shows itself to others than its child.
said=$(readlink "/proc/$$/exe" 2>/dev/null)
if [ -n "$said" ]; then say "=exe$tab$said"; else say "!exe${tab}readlink says nothing"; fi
smolship_files /proc/sys/kernel/osrelease /proc/sys/kernel/hostname /proc/sys/kernel/random/boot_id
smolship_files /proc/meminfo /proc/swaps /proc/cpuinfo /proc/self/status /proc/self/limits /proc/mounts
groups
smolship_files /etc/os-release /etc/machine-id /var/lib/dbus/machine-id
smolship_files /proc/device-tree/model /proc/device-tree/serial-number /sys/firmware/devicetree/base/model
for file in /proc/device-tree/compatible /sys/firmware/devicetree/base/compatible; do
  if has tr && [ -r $file ]; then tr '\0' ' ' <$file 2>/dev/null | lines $file; fi
done
smolship_files /sys/firmware/devicetree/base/serial-number /sys/class/dmi/id/product_name /sys/class/dmi/id/sys_vendor
smolship_files /sys/class/dmi/id/product_serial /sys/class/dmi/id/board_serial
smolship_files /sys/devices/system/cpu/online /sys/devices/system/cpu/cpu[0-9]*/cpu_capacity
smolship_files /sys/devices/system/cpu/cpu[0-9]*/cpufreq/cpuinfo_max_freq
smolship_files /sys/devices/system/cpu/cpu[0-9]*/regs/identification/midr_el1
smolship_command uname -m
smolship_command uname -r
smolship_command getconf PAGESIZE
smolship_command getconf GNU_LIBC_VERSION
smolship_command ldd --version
bytes /proc/self/auxv 512
for name in ro.product.model ro.product.manufacturer ro.soc.model ro.serialno ro.build.version.release \
  ro.build.version.sdk ro.kernel.qemu ro.boot.qemu ro.hardware; do
  smolship_command getprop $name
done
for name in $tools; do
  found=$(command -v "$name" 2>/dev/null)
  case $found in
    /*) say "=tool $name$tab$found" ;;
    *) say "!tool $name${tab}not in $PATH" ;;
  esac
done
for name in $pythons; do
  found=$(command -v "$name" 2>/dev/null) || continue
  said=$("$found" -I -c "$python" 2>&1 </dev/null | lines "python $name")
  say "$said"
done
for name in $folders; do
  case $name in
    '~'/*)
      case ${HOME-} in
        /*) folder "${HOME%/}${name#'~'}" ;;
        *) say "=tried$tab$name"; say "!folder $name${tab}HOME is no path: ${HOME:-not set}" ;;
      esac
      ;;
    *) folder "$name" ;;
  esac
done
say "=end${tab}."
