#!/bin/bash
# restart.sh - restarts one stage of a live run and waits until its new process is ready.
#
#   pipelines/restart.sh STAGE [--run DIR]     STAGE: loaderd, trainerd, fisherd or monitord
#                                              default run: the live one below runs/ that was started last
#
# The work goes on as if nothing had happened: the weights at the end are the same.
#
#   --run DIR    directory of the run
#   --help       this
#
# example: pipelines/restart.sh loaderd
set -u
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common.sh"

run= stage=
while [ $# -gt 0 ]; do
    case $1 in
    --run) need_value "$1" $#; run=$(realpath -m -- "$2"); shift ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
    -*) fail $EXIT_PERMANENT "unknown option '$1'; accepted: --run DIR, --help" ;;
    *) stage=$1 ;;
    esac
    shift
done
case " $STAGES " in
*" ${stage:-?} "*) ;;
*) fail $EXIT_PERMANENT "name the stage to restart: one of $STAGES" ;;
esac
[ -n "$run" ] || run=$(run_find) || fail $EXIT_PERMANENT "no run is live below $repository/runs; name one with --run DIR"
run_is_live "$run" || fail $EXIT_PERMANENT "the run in $run is not live: there is nothing to restart"

s6-svc -wR -T 30000 -r "$run/services/$stage" ||
    fail $EXIT_TEMPORARY "$stage was told to restart but is not ready after 30 s; see $run/logs/$stage/current"
read -r incarnation pid <"$run/locks/$stage"
echo "$stage: restarted, process $pid, incarnation $incarnation"
