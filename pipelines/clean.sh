#!/bin/bash
# clean.sh - what runs take of the disk, and making room: finished runs that nobody needs, or of those that stay what
# only going on would need.
#
# A run that is live, or whose lock somebody holds, is left alone, and so is a directory that is no run. Without --yes
# nothing is removed or written. The lock is held while something is removed and no longer: whoever launches the run
# meanwhile waits (lock_take in launch.sh). A whole run gets another name first, which takes no time.
#
# example: pipelines/clean.sh --older-than 30 --yes
set -u
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common.sh"

usage() {
    cat <<'END'
usage: clean.sh [--checkpoints] [--older-than DAYS] [--yes] [RUN ...]

Lists the runs (default: all below runs/ in the repository) with their size, their age and how they ended, and what
would be removed; with --yes that is removed. What continual_learning.fisher_dir has elsewhere belongs to its run.

  --checkpoints      of finished runs (exit code 0) the checkpoints inside of tasks, averages and sums of Fisher
                     information: what is left are the weights that tasks ended with, the best, Fisher files,
                     report, logs and profiles, so that compare.sh, predict.sh and weights.sh work as before
  --older-than DAYS  whole runs that ended (whatever the exit code) so many days ago or more; one that is paused
                     (75, training.max_hours is over) only where RUN names it
  --yes              remove it
  --help             this

Exit codes: 0 done; 100 cannot work.

example: pipelines/clean.sh --older-than 30 --yes
END
}

checkpoints= days= yes= named= runs=() halves=()
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
    *) named=1 runs+=("$1") ;;
    esac
    shift
done
[ -n "$named" ] || for directory in "$repository"/runs/*/; do
    directory=${directory%/}
    [ ! -e "$directory/pipeline.yaml" ] || [ -L "$directory" ] || runs+=("$directory")
done
[ -n "$named" ] || for directory in "$repository"/runs/.*.removed-[0-9]*/; do # as `take` names them
    directory=${directory%/}
    [ -L "$directory" ] || [ ! -d "$directory" ] || [ -e "/proc/${directory##*.removed-}" ] || halves+=("$directory")
done

# size FILE ...: MiB of them, a file of several names once.
size() {
    [ $# -gt 0 ] || { echo 0; return; }
    du -cm -- "$@" 2>/dev/null | tail -n 1 | cut -f 1
}

# fisher_look RUN: where continual_learning.fisher_dir has the run's Fisher information elsewhere (proto/fisherdir.c) sets
# fisher to that directory, if it is the run's own, fisher_lost to one that cannot be reached, and fisher_other to one that
# is not known to be this run's: nothing but the first is touched. It is known by the name that we give and by the file in it
# that names the run, or the inode that the run has kept where it was moved.
fisher= fisher_lost= fisher_other=
fisher_look() {
    local target text named inode mark='Fisher information of the run in '
    fisher= fisher_lost= fisher_other=
    target=$(readlink -- "$1/fisher") || return 0
    [ -e "$1/fisher" ] || { fisher_lost=$target; return; }
    fisher_other=$target
    [[ ${target##*/} =~ ^.+-[0-9a-f]{8}$ ]] && [ "${target:0:1}" = / ] && [ ! -L "$target" ] && [ -d "$target" ] &&
        [ -f "$target/run" ] && text=$(head -c 4200 -- "$target/run") && [ "${text#"$mark"/}" != "$text" ] || return 0
    named=${text#"$mark"}
    inode=${named##*$'\n'inode }
    if [ "${named%%$'\n'*}" -ef "$1" ] || [ "$inode" = "$(stat -L -c %i -- "$1")" ]; then
        fisher=$target fisher_other=
    fi
}

# fisher_remove RUN: all of $fisher, last the file by which it is known, and the link to it.
fisher_remove() {
    find "$fisher" -mindepth 1 -maxdepth 1 ! -name run -exec rm -rf -- {} + && rm -f -- "$fisher/run" &&
        rmdir -- "$fisher" && rm -f -- "$1/fisher"
}

# lock_is_held RUN: looked for in passing, and only where there is one.
lock_is_held() {
    [ -e "$1/lock" ] && ! flock -n -s -- "$1/lock" true
}

# When a run ended, to tell one that was started again since.
ended_stamp() {
    stat -c %y:%i -- "$1/verdict" 2>/dev/null
}

# lock_take RUN STAMP: holds the lock on descriptor `lock`; 1 if somebody else does, or the run is not what it was.
lock_take() {
    exec {lock}<>"$1/lock" || fail $EXIT_TEMPORARY "cannot write in $1"
    if flock -n "$lock" && [ "/proc/self/fd/$lock" -ef "$1/lock" ] && [ "$(ended_stamp "$1")" = "$2" ]; then
        printf '%s %s cleaning\n' $$ "$(process_start $$)" >"$1/lock"
        return
    fi
    exec {lock}>&-
    return 1
}

# take RUN WHAT FILE ...: removes the files, or says that it would; the whole run where it is the file.
take() {
    local run=$1 what=$2 stamp aside= apart=
    shift 2
    [ $# -gt 0 ] || return 0
    if [ "$1" = "$run" ] && [ -n "$fisher_lost" ]; then
        echo "  left alone: its Fisher information is in $fisher_lost, which cannot be reached; mount its disk, or remove the link $run/fisher"
        return
    fi
    [ "$1" != "$run" ] || apart=$fisher
    what+=${apart:+ and $apart}
    if [ -z "$yes" ]; then
        echo "  would remove $what ($(size "$@" ${apart:+"$apart"}) MiB)"
        return
    fi
    stamp=$(ended_stamp "$run")
    echo "  removes $what ($(size "$@" ${apart:+"$apart"}) MiB)"
    lock_take "$run" "$stamp" || { echo "  left alone: it was started meanwhile"; return; }
    if [ "$1" = "$run" ]; then
        [ -z "$fisher_other" ] || echo "  leaves $fisher_other, which is not known to be this run's"
        run=$(realpath -- "$run") # `.` has no other name
        aside=${run%/*}/.${run##*/}.removed-$$
        mv -T -- "$run" "$aside" || fail $EXIT_TEMPORARY "cannot remove $what: its name cannot be changed to $aside"
        [ -z "$apart" ] || fisher_remove "$aside" || fail $EXIT_TEMPORARY "cannot remove $apart"
        set -- "$aside"
        exec {lock}>&-
    fi
    rm -rf -- "$@" || fail $EXIT_TEMPORARY "cannot remove $what"
    [ -z "$aside" ] || return 0
    : >"$run/lock"
    exec {lock}>&-
}

# What a finished run has beside its results; its newest checkpoint is the end of the last task, which the report and
# compare.sh look for under that name.
leftover_list() {
    local newest
    newest=$(find "$1/checkpoints" -maxdepth 1 -name 'step-*.h5' -printf '%f\n' | sort | tail -n 1)
    find "$1/checkpoints" -maxdepth 1 -type f \( -name 'step-*.h5' -o -name 'average-*.f32' -o -name restore.h5 \
        -o -name '*.tmp*' \) ! -name "$newest" -print0 2>/dev/null
    find "${fisher:-$1/fisher}" -mindepth 1 -maxdepth 2 -type f \( -name 'sums-[01]' -o -name half \) -print0 2>/dev/null
}

run_look() {
    local run=$1 code ended how files=()
    while [[ $run = ?*/ ]]; do run=${run%/}; done # behind a slash a link is a directory
    [ ! -L "$run" ] || fail $EXIT_PERMANENT "$run is a link; name the run itself, $(realpath -m -- "$run")"
    [ -e "$run/pipeline.yaml" ] || fail $EXIT_PERMANENT "$run is no run: it has no pipeline.yaml"
    fisher_look "$run"
    if run_is_live "$run" || lock_is_held "$run"; then
        echo "$run: $(size "$run" ${fisher:+"$fisher"}) MiB, going on"
        return
    fi
    code=$(sed -n '1s/^\([0-9]*\).*/\1/p' "$run/verdict" 2>/dev/null)
    ended=$run/verdict
    [ -e "$ended" ] || ended=$run/lock
    [ -e "$ended" ] || ended=$run/pipeline.yaml
    ended=$((($(date +%s) - $(stat -c %Y -- "$ended")) / 86400))
    how=${code:+ended with }${code:-not ended}
    [ "$code" != $EXIT_PAUSED ] || how="paused: the command that started it goes on"
    echo "$run: $(size "$run" ${fisher:+"$fisher"}) MiB, $ended days, $how"
    if [ -n "$days" ] && [ -n "$code" ] && [ "$ended" -ge "$days" ] && [ "$code$named" != $EXIT_PAUSED ]; then
        take "$run" "the run" "$run"
    elif [ -n "$checkpoints" ] && [ "${code:-1}" = 0 ]; then
        mapfile -d '' files < <(leftover_list "$run")
        take "$run" "${#files[@]} files that only going on would need" "${files[@]}"
    fi
}

for run in "${runs[@]}"; do
    run_look "$run"
done
for half in "${halves[@]}"; do
    echo "$half: $(size "$half") MiB, what clean.sh left when it was interrupted"
    if [ -z "$yes" ]; then
        echo "  would remove it"
    else
        fisher_look "$half"
        [ -z "$fisher" ] || fisher_remove "$half" || fail $EXIT_TEMPORARY "cannot remove $fisher"
        rm -rf -- "$half" || fail $EXIT_TEMPORARY "cannot remove $half"
        echo "  removed"
    fi
done
