#!/bin/bash
# clean.sh - what runs take of the disk, and making room: finished runs that nobody needs, or of those that stay what
# only going on would need.
#
# A run that is live, or whose lock somebody holds, is left alone, and so is a directory that is no run. Without --yes
# nothing is removed.
#
# example: pipelines/clean.sh --older-than 30 --yes
set -u
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd -P)
. "$here/common.sh"

usage() {
    cat <<'END'
usage: clean.sh [--checkpoints] [--older-than DAYS] [--yes] [RUN ...]

Lists the runs (default: all below runs/ in the repository) with their size, their age and how they ended, and what
would be removed; with --yes that is removed.

  --checkpoints      of finished runs (exit code 0) the checkpoints inside of tasks, averages and sums of Fisher
                     information: what is left are the weights that tasks ended with, the best, Fisher files,
                     report, logs and profiles, so that compare.sh, predict.sh and weights.sh work as before
  --older-than DAYS  whole runs that ended (whatever the exit code) so many days ago or more
  --yes              remove it
  --help             this

Exit codes: 0 done; 100 cannot work.

example: pipelines/clean.sh --older-than 30 --yes
END
}

checkpoints= days= yes= runs=()
while [ $# -gt 0 ]; do
    case $1 in
    --checkpoints) checkpoints=1 ;;
    --older-than)
        need_value "$1" $#
        days=$2
        [[ $days =~ ^[0-9]{1,5}$ ]] || fail $EXIT_PERMANENT "--older-than $days: expected a whole number of days"
        shift
        ;;
    --yes) yes=1 ;;
    --help)
        usage
        exit 0
        ;;
    -*) fail $EXIT_PERMANENT "option $1 is unknown; see clean.sh --help" ;;
    *) runs+=("$1") ;;
    esac
    shift
done
[ ${#runs[@]} -gt 0 ] || for directory in "$repository"/runs/*/; do
    [ ! -e "$directory/pipeline.yaml" ] || runs+=("${directory%/}")
done

# size FILE ...: MiB of them, a file of several names once.
size() {
    [ $# -gt 0 ] || { echo 0; return; }
    du -cm -- "$@" 2>/dev/null | tail -n 1 | cut -f 1
}

# Removes the list, or says that it would.
take() {
    local what=$1
    shift
    [ $# -gt 0 ] || return 0
    if [ -z "$yes" ]; then
        echo "  would remove $what ($(size "$@") MiB)"
    else
        echo "  removes $what ($(size "$@") MiB)"
        rm -rf -- "$@" || fail $EXIT_TEMPORARY "cannot remove $what"
    fi
}

# What a finished run has beside its results; its newest checkpoint is the end of the last task, which the report and
# compare.sh look for under that name.
leftover_list() {
    local newest
    newest=$(find "$1/checkpoints" -maxdepth 1 -name 'step-*.h5' -printf '%f\n' | sort | tail -n 1)
    find "$1/checkpoints" -maxdepth 1 -type f \( -name 'step-*.h5' -o -name 'average-*.f32' -o -name restore.h5 \
        -o -name '*.tmp*' \) ! -name "$newest" -print0 2>/dev/null
    find "$1/fisher" -mindepth 1 -maxdepth 2 -type f \( -name 'sums-[01]' -o -name half \) -print0 2>/dev/null
}

run_look() {
    local run=$1 code ended
    [ -e "$run/pipeline.yaml" ] || fail $EXIT_PERMANENT "$run is no run: it has no pipeline.yaml"
    exec {lock}>>"$run/lock" # held while we look and remove: nobody launches it meanwhile
    if run_is_live "$run" || ! flock -n "$lock"; then
        echo "$run: $(size "$run") MiB, going on"
        exec {lock}>&-
        return
    fi
    code=$(sed -n '1s/^\([0-9]*\).*/\1/p' "$run/verdict" 2>/dev/null)
    ended=$((($(date +%s) - $(stat -c %Y -- "$run/$([ -e "$run/verdict" ] && echo verdict || echo lock)")) / 86400))
    echo "$run: $(size "$run") MiB, $ended days, ${code:+ended with }${code:-not ended}"
    if [ -n "$days" ] && [ -n "$code" ] && [ "$ended" -ge "$days" ]; then
        take "the run" "$run"
    elif [ -n "$checkpoints" ] && [ "${code:-1}" = 0 ]; then
        local files=()
        mapfile -d '' files < <(leftover_list "$run")
        take "${#files[@]} files that only going on would need" "${files[@]}"
    fi
    exec {lock}>&-
}

for run in "${runs[@]}"; do
    run_look "$run"
done
