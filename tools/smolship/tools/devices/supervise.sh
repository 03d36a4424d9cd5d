# Runs "$@" in the folder $RUN of a device, and ends it when nobody waits for it any more. For any POSIX shell.
#
# Set before: RUN, LOCK (a folder beside it), OWNER, LIMIT (seconds), SILENT (seconds without a heartbeat), FORGET (not
# empty: RUN is removed where nobody waits any more, for who waits removes it), and the functions of lock.sh, run.sh and
# `sample`, which writes what the sensors say of $pid. Standard input: a line a heartbeat.
# Standard output: the runner's, and lines "smolship-supervisor WORD …" of its own:
#
#     busy PID OWNER        another run holds the lock, and nothing was started; its process, by number, start and
#                           boot_id, is there
#     full REASON           its files cannot be written, and nothing was started
#     left PID              a runner of an earlier run is still there, whose supervisor was killed; nothing was started
#     started PID BOOT_ID
#     ended STATUS WHY      WHY: done, lost (no heartbeats), late (LIMIT is over), memory (less than 5 % available)
#
# In RUN it leaves log (the runner's standard error) and samples (what the sensors said, once a second).

# What a person set for programs of their own is not for the runner's libraries.
unset LD_LIBRARY_PATH LD_PRELOAD PYTHONHOME PYTHONSTARTUP PYTHONINSPECT PYTHONOPTIMIZE PYTHONWARNINGS

take
trap 'rm -rf "$LOCK"; [ -z "$reader" ] || kill "$reader" 2>/dev/null' EXIT
trap 'stop KILL; forget; exit 129' HUP # a shell that a signal ends leaves without its last trap
trap 'stop KILL; exit 143' TERM
trap : PIPE # nobody reads any more
for file in "${RUN%/*}"/*/alive; do
  [ -e "$file" ] || continue
  if held "$file"; then
    say "left $holder"
    exit 75
  fi
  rm -f "$file"
done

cd "$RUN" || exit 74
rm -f pid status beat samples log
listen
(
  SMOLSHIP_SUPERVISED=1 sh -c '
    echo $$ >pid && [ -s pid ] || exit 74 # without its number nobody could end it
    echo 1000 2>/dev/null >/proc/$$/oom_score_adj
    exec "$@"' sh "$@" </dev/null 2>log
  code=$?
  echo $code >status.new && mv status.new status
  exit $code
) 3<&- &
wrapper=$!

seen=$(began $$)
over() { # the runner has ended; on a full disk its status is not written
  [ -e status ] || { [ -n "$seen" ] && [ -z "$(began "$wrapper")" ]; }
}

stop() { # the group that the runner leads, or the runner alone where it leads none yet
  kill "-$1" "-$pid" 2>/dev/null || kill "-$1" "$pid" 2>/dev/null
}

forget() { [ -z "$FORGET" ] || { cd / && rm -rf "$RUN"; }; }

end() {
  why=$1
  stop TERM
  wait_for 5
  over || stop KILL
  wait_for 5
  over || ended=137 # it waits for the kernel, which lets go of it some time
}

wait_for() { # its end, so many seconds
  left=$1
  while ! over && [ "$left" -gt 0 ]; do
    sleep 1
    left=$((left - 1))
  done
}

pid='' why=done ended=''
while [ -z "$ended" ] && ! over; do
  tick
  if [ -z "$pid" ] && [ -s pid ]; then
    read -r pid <pid
    printf '%s %s %s\n' "$pid" "$boot" "$(began "$pid")" >alive
    say "started $pid $boot"
  fi
  [ -n "$pid" ] || continue
  hear
  sample >>samples
  if over; then
    break
  elif lonely; then
    end lost
  elif [ $seconds -ge "$LIMIT" ]; then
    end late
  elif low; then
    end memory
  fi
done
kill $reader 2>/dev/null
status=$ended
[ -n "$status" ] || read -r status 2>/dev/null <status
if [ -z "$ended" ]; then
  wait $wrapper 2>/dev/null
  status=${status:-$?}
fi
[ "$status" != 74 ] || [ -s pid ] || full .
[ -n "$pid" ] && [ -n "$(began "$pid")" ] || rm -f alive
say "ended $status $why" 2>/dev/null || why=lost
[ ! -e beat ] || read -r now <beat # it may have ended by itself, and nobody waited any more
[ "$why" != lost ] && [ "$now" != end ] || [ -e alive ] || forget
exit 0
