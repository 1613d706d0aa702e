# common.sh - what the scripts of this directory share. Sourced by them, never started.
#
# A run lives in a directory (proto/run.h). It is live while its s6-svscan is: s6-svok on one of the service
# directories tells. The lock (RUN/lock) is held by finetune.sh and by everything it started.

EXIT_PERMANENT=100 # as in proto/err.h
EXIT_TEMPORARY=111
EXIT_PAUSED=75

STAGES="loaderd fisherd monitord trainerd"

repository=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
binaries=$repository/build/release/bin

# fail CODE SENTENCE: the only way these scripts end in an error.
fail() {
    printf '%s: %s\n' "${0##*/}" "$2" >&2
    exit "$1"
}

# value_of OPTION COUNT: fails unless an option has its value.
need_value() {
    [ "$2" -ge 2 ] || fail $EXIT_PERMANENT "$1 needs a value; see ${0##*/} --help"
}

# programs_build: compiles what is not there or older than its source. One at a time looks and does, the others wait.
programs_build() {
    local log lock started=$SECONDS
    exec {lock}<"$repository/Makefile" || fail $EXIT_PERMANENT "cannot read $repository/Makefile"
    flock -w 2 "$lock" || {
        echo "build: another process compiles; waiting for it"
        flock "$lock"
    } || fail $EXIT_TEMPORARY "cannot lock $repository/Makefile"
    if ! make -s -q -C "$repository" all 2>/dev/null; then
        log=$(mktemp) || exit $EXIT_TEMPORARY
        echo "build: compiling (once)"
        make -s -j "$(nproc)" -C "$repository" all 2>"$log" >/dev/null {lock}<&- || {
            cat "$log" >&2
            rm -f "$log"
            fail $EXIT_PERMANENT "the build failed (above)"
        }
        rm -f "$log"
        echo "build: done in $((SECONDS - started)) s"
    fi
    exec {lock}<&-
}

# run_is_live DIR
run_is_live() {
    command -v s6-svok >/dev/null && s6-svok "$1/services/trainerd" 2>/dev/null
}

# stage_is_supervised DIR STAGE: can s6-svc be told to wait for it? Its supervisor listens before it writes a status.
stage_is_supervised() {
    [ -e "$1/services/$2/supervise/status" ] && s6-svok "$1/services/$2" 2>/dev/null
}

# run_find: prints the directory of the live run below runs/ that was launched last.
run_find() {
    local directory newest=
    for directory in "$repository"/runs/*/; do
        directory=${directory%/}
        if run_is_live "$directory"; then
            if [ -z "$newest" ] || [ "$directory/supervisor" -nt "$newest/supervisor" ]; then
                newest=$directory
            fi
        fi
    done
    [ -n "$newest" ] && printf '%s\n' "$newest"
}

# process_start PID: start time in clock ticks since boot, which makes a pid unique; nothing if it is gone.
process_start() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    set -- ${stat##*) }
    printf '%s\n' "${20}"
}

# verdict_read DIR: sets verdict_code and verdict_sentence; 1 if there is no verdict.
verdict_read() {
    verdict_code= verdict_sentence=
    { read -r verdict_code verdict_sentence <"$1/verdict"; } 2>/dev/null || [ -n "$verdict_code" ]
}

# progress_show DIR PID: starts a tap that shows the run's progress until process PID ends; its own process
# id is in progress_pid.
progress_show() {
    "$binaries/tap" --run "$1" --progress --until-pid "$2" 9>&- & # 9: finetune.sh's lock
    progress_pid=$!
}

progress_end() {
    [ -z "${progress_pid:-}" ] && return
    # It ends by itself soon after the run does, having shown the last step.
    local tries=20
    while kill -0 "$progress_pid" 2>/dev/null && [ $tries -gt 0 ]; do
        sleep 0.1
        tries=$((tries - 1))
    done
    kill "$progress_pid" 2>/dev/null
    wait "$progress_pid" 2>/dev/null
    progress_pid=
}

# run_conclude DIR: prints what a run that is down has to say and exits with its code. The report was made by
# services/svscan-finish when everything was down.
run_conclude() {
    if ! verdict_read "$1"; then
        fail $EXIT_TEMPORARY "the run in $1 has not finished and nothing of it runs; start it again to go on"
    fi
    if [ "$verdict_code" = "$EXIT_PAUSED" ]; then
        echo "run: $verdict_sentence${command_again:+: $command_again}"
        exit $EXIT_PAUSED
    fi
    if [ "$verdict_code" != 0 ]; then
        fail "$verdict_code" "$verdict_sentence (logs: $1/logs)"
    fi
    "$binaries/monitord" --report "$1" || exit
    exit 0
}
