# Writes files and commands' outputs as tree.py reads them. For dash, busybox's ash, mksh and bash: files are read by
# the shell's own commands alone.

# The Korn shells of phones have no printf of their own.
if [ -n "${KSH_VERSION-}" ]; then
  smolship_say() { print -r -- "$1"; }
else
  smolship_say() { printf '%s\n' "$1"; }
fi
smolship_tab=$(printf '\t')

# PATH: its lines, or why there are none.
smolship_file() {
  if [ ! -e "$1" ]; then smolship_say "!$1${smolship_tab}ENOENT"; return; fi
  if [ ! -r "$1" ]; then smolship_say "!$1${smolship_tab}EACCES"; return; fi
  if [ -d "$1" ]; then smolship_say "!$1${smolship_tab}EISDIR"; return; fi
  smolship_none=1
  while IFS= read -r smolship_line || [ -n "$smolship_line" ]; do
    smolship_none=0
    smolship_say "=$1${smolship_tab}$smolship_line"
    smolship_line=
  done 2>/dev/null <"$1"
  if [ "$smolship_none" = 1 ]; then smolship_say "!$1${smolship_tab}EMPTY"; fi
}

# PATH of a temperature: read again once, where there is none or it cannot be one.
smolship_temperature() {
  smolship_line=
  IFS= read -r smolship_line 2>/dev/null <"$1" || :
  smolship_number=$smolship_line
  # What is no number stays away from test: some shells evaluate it as an expression.
  case ${smolship_line#-} in '' | *[!0-9]* | ???????*) smolship_number=999999 ;; esac
  if [ "$smolship_number" -ge -30000 ] && [ "$smolship_number" -le 125000 ]; then
    smolship_say "=$1${smolship_tab}$smolship_line"
  else
    smolship_say "~$1${smolship_tab}$smolship_line"
    smolship_file "$1"
  fi
}

# PATH…: patterns are the caller's shell's.
smolship_files() {
  for smolship_path in "$@"; do
    case $smolship_path in
      *'*'*)
        smolship_folder=${smolship_path%%'*'*}
        smolship_folder=${smolship_folder%/*}
        smolship_error=ENOENT
        if [ -d "$smolship_folder" ] && [ ! -r "$smolship_folder" ]; then smolship_error=EACCES; fi
        smolship_say "!$smolship_path${smolship_tab}$smolship_error"
        ;;
      */temp) smolship_temperature "$smolship_path" ;;
      *) smolship_file "$smolship_path" ;;
    esac
  done
}

# WORD…: what a command prints, to either output and whatever its status. One that hangs would hold who samples, and is
# ended where the device has a `timeout` (busybox' older ones take other words).
smolship_command() {
  if ! command -v "$1" >/dev/null 2>&1; then
    smolship_say "!\$ $*${smolship_tab}not in $PATH"
    return
  fi
  if [ -z "${smolship_limit+set}" ]; then
    smolship_limit=
    if timeout 5 true >/dev/null 2>&1; then smolship_limit='timeout 5'; fi
  fi
  smolship_words="$*"
  {
    $smolship_limit "$@" 2>&1 </dev/null
    case $? in 124 | 143) echo 'no end within 5 s' ;; esac
  } | while IFS= read -r smolship_line || [ -n "$smolship_line" ]; do
    smolship_say "=\$ $smolship_words${smolship_tab}$smolship_line"
    smolship_line=
  done
}

smolship_begin() {
  smolship_line=
  IFS=' ' read -r smolship_line smolship_rest 2>/dev/null </proc/uptime || :
  smolship_say "@$smolship_line"
}

smolship_end() { smolship_say .; }
