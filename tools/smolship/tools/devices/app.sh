# Has the demo app of a phone execute a plan, and ends the app when nobody waits for it any more. The app tells in files
# how far it is (BenchFiles.kt). For any POSIX shell.
#
# Set before: RUN (a folder of adb's user), LOCK, OWNER, LIMIT, SILENT and what is before supervise.sh, whose words are
# said here, too; PACKAGE and ACTIVITY; HOME_DIR (the app's folder), FILES (the run's, below it, with plan.json), FOLDER
# (the artifact's, below it) and ID, by which the app knows the run. Standard input: a line a heartbeat.
# Standard output: what the app tells, a line each time it changes, words as of supervise.sh, and
#
#     unstarted REASON      the app was not begun, or did not begin

stop() { am force-stop "$PACKAGE" >/dev/null 2>&1 </dev/null; }

take
result=$HOME_DIR/$FILES/result.json pid='' told='' stale=0 why='' status=137
trap 'rm -rf "$LOCK"; [ -z "$reader" ] || kill "$reader" 2>/dev/null' EXIT
trap 'stop; exit 129' HUP
trap 'stop; exit 143' TERM
trap : PIPE # nobody reads any more
cd "$RUN" || exit 74
rm -f beat samples
listen

there() { # the app's process; where those of others are not shown, by its name
  [ -d "/proc/$pid" ] || { [ ! -d /proc/1 ] && pidof "$PACKAGE" >/dev/null 2>&1; }
}

look() { # at what the app tells
  text=
  [ ! -e "$result.progress" ] || IFS= read -r text <"$result.progress"
  if [ "$text" = "$told" ]; then
    stale=$((stale + 1))
    return
  fi
  told=$text stale=0
  if [ -z "$pid" ]; then
    pid=${text#*'"pid"'} pid=${pid#*:} pid=${pid# }
    pid=${pid%%[!0-9]*}
    [ -z "$pid" ] || say "started $pid $boot"
  fi
  printf '%s\n' "$text"
}

said=$(am start -n "$PACKAGE/$ACTIVITY" --es plan "$FILES/plan.json" --es result "$FILES/result.json" \
  --es folder "$FOLDER" --es id "$ID" 2>&1 </dev/null)
code=$?
case $code:$said in
0:*Error* | 0:*Exception* | [!0]*) # am itself often says 0
  say "unstarted $(printf '%s' "$said" | tr '\n' ' ')"
  exit 69
  ;;
esac
while [ -z "$why" ]; do
  tick
  look
  [ -z "$pid" ] || sample >>samples
  hear
  if [ -e "$result" ]; then
    why=done status=0
  elif [ -e "$result.error" ]; then
    why=done status=3
    cat "$result.error"
    echo
  elif [ -z "$pid" ] && [ $seconds -ge 60 ]; then
    stop
    say "unstarted nothing came of it in a minute"
    exit 69
  elif [ -n "$pid" ] && [ $stale -ge 3 ] && ! there; then
    why=done
  elif lonely; then
    why=lost
  elif [ $seconds -ge "$LIMIT" ]; then
    why=late
  elif low; then
    why=memory
  fi
done
[ "$why" = done ] || stop
kill $reader 2>/dev/null
say "ended $status $why" 2>/dev/null
exit 0
