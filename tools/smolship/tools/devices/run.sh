# What supervisors of runs share, behind lock.sh: their words, the lock, heartbeats, time, memory. For any POSIX shell.

say() { printf 'smolship-supervisor %s\n' "$*"; }

full() { # FOLDER in which nothing can be written
  say "full $(df -kP "$1" 2>/dev/null | tail -n 1)"
  exit 74
}

take() { # the lock, or leave
  if ! mkdir "$LOCK" 2>/dev/null; then
    if held "$LOCK/holder"; then
      say "busy $holder $owner"
      exit 75
    fi
    mkdir -p "$LOCK" || full "${LOCK%/*}"
  fi
  if ! printf '%s %s %s %s\n' "$$" "$boot" "$OWNER" "$(began $$)" >"$LOCK/holder" || [ ! -s "$LOCK/holder" ]; then
    rm -rf "$LOCK"
    full "${LOCK%/*}"
  fi
}

listen() { # to heartbeats: the last one is in the file beat, and "end" behind them
  exec 3<&0
  (
    while read -r beat <&3; do printf '%s\n' "$beat" >beat.new && mv beat.new beat; done
    echo end >beat.new && mv beat.new beat
  ) &
  reader=$!
}

reader='' now='' last='' quiet=0 seconds=0 up='' total=0 available=0
read -r up rest 2>/dev/null </proc/uptime
first=${up%%.*}

tick() { # a second; a round takes longer than that where the machine is slow
  sleep 1
  seconds=$((seconds + 1))
  if [ -n "$first" ] && read -r up rest </proc/uptime && [ $((${up%%.*} - first)) -gt $seconds ]; then
    seconds=$((${up%%.*} - first))
  fi
}

hear() { # once a round
  now=
  [ -e beat ] && read -r now <beat
  if [ "$now" = "$last" ]; then quiet=$((quiet + 1)); else quiet=0; fi
  last=$now
}

lonely() { [ "$now" = end ] || [ $quiet -ge "$SILENT" ]; }

low() { # less than 5 % of the memory is available
  while read -r name value unit; do
    case $name in
    MemTotal:) total=$value ;;
    MemAvailable:) available=$value ;;
    esac
  done 2>/dev/null </proc/meminfo
  [ "$available" -gt 0 ] && [ $((available * 20)) -lt "$total" ]
}
