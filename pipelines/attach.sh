#!/bin/bash
# attach.sh - shows the progress of a run that goes on detached; Ctrl-C or a signal ends the showing, not the run.
#
#   pipelines/attach.sh [--run DIR]     default: the live run below runs/ that was started last
#
# When the run ends it prints the report and exits with the run's code, as finetune.sh would have.
#
#   --run DIR    directory of the run
#   --help       this
#
# example: pipelines/attach.sh --run runs/fashion
set -u
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common.sh"

# showing_end CODE: a signal, which tap may not have heard.
showing_end() {
    [ -z "${progress_pid:-}" ] || kill "$progress_pid" 2>/dev/null
    progress_end
    echo "run: goes on detached"
    exit "$1"
}

run=
while [ $# -gt 0 ]; do
    case $1 in
    --run) need_value "$1" $#; run=$(realpath -m -- "$2"); shift ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
    *) fail $EXIT_PERMANENT "unknown option '$1'; accepted: --run DIR, --help" ;;
    esac
    shift
done
[ -n "$run" ] || run=$(run_find) || fail $EXIT_PERMANENT "no run is live below $repository/runs; name one with --run DIR"
[ -d "$run/services" ] || fail $EXIT_PERMANENT "there is no run in $run"

supervisor=0
{ read -r supervisor <"$run/supervisor"; } 2>/dev/null
if run_is_live "$run" && kill -0 "$supervisor" 2>/dev/null; then
    echo "run: $run"
    trap 'showing_end 130' INT
    trap 'showing_end 143' TERM
    trap 'showing_end 129' HUP
    progress_show "$run" "$supervisor"
    wait "$progress_pid"
    progress_pid=
    while kill -0 "$supervisor" 2>/dev/null; do
        sleep 0.1 # the stages go down, then the report is made
    done
fi
run_conclude "$run"
