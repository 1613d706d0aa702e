# launch.sh - one run from its arguments to its report: what finetune.sh and continual.sh do. Sourced by them, never
# started; they say which pipeline file is the default (`config`) and, in usage_begin, what they are for.
#
# Installs missing packages, builds, prepares the data, writes the run's effective pipeline file, starts the four
# stages under s6, shows progress, prints the report. Each step skips what is done already, so the same command
# resumes an unfinished run. What happens to a stage that dies is decided in services/finish.
. "$here/common.sh"

usage() {
    usage_begin
    cat <<'END'
  --run DIR                  directory of the run (default: runs/<name> in the repository); a run that is
                             there and unfinished is resumed
  --set SECTION.KEY=VALUE    change one option of the pipeline file; repeatable (docs/OPTIONS.md lists all)
  --preset NAME              standard, saving, tight, roomy or conservative (short for --set preset=NAME)
  --device auto|cpu|cuda     where to compute (short for --set device=...); cuda:1, cuda:H100: on which GPU
  --use-memory-efficient [on|off]
                             Fisher information block by block, or the whole model at once (short for --set
                             continual_learning.ewc_config.fisher_computation.use_memory_efficient=...; default: on)
  --dynamic-batch-size [on|off]
                             smaller micro-batches where memory is short (short for --set
                             training.dynamic_batch_size=...; default: on)
  --rebuild-cache            prepare the data file anew even if it is there
  --profile-memory           write logs/memory_profile/*.json and *.png (short for --set monitor.profile=true)
  --plan                     print the plan of memory and disk and run nothing
  --check-data               print what the data hold (shapes, ranges, NaN, classes, rows in both splits), say what
                             would stop a run, too little memory for its plan included, and run nothing
  --detach                   start the run and return; pipelines/attach.sh shows its progress
  --help                     this

FILE and DIR are relative to the present directory; data.file, data.source, model.pretrained and
continual_learning.fisher_dir, in a pipeline file or by --set, to the repository.

Exit codes: 0 done; 100 cannot work (bad option, bad data, run in use); 70 a stage kept dying (the disk stayed
full); 75 training.max_hours is over; 111 may work later; 129 goes on without its terminal; 130 and 143 stopped by
Ctrl-C and SIGTERM. After 75, 130 and 143 the same command goes on.

END
    usage_example
}

# ---- arguments --------------------------------------------------------------------------------------------

run= detach= plan= check= rebuild= config_default=$config
options=() # --set texts for the programs

# The command that goes on with this run, from anywhere.
command_again=

# switch OPTION WORD: on, or what the word says if it is on or off; 0 if it was one of them.
switch() {
    case $2 in
    on | off) options+=(--set "$1=$([ "$2" = on ] && echo true || echo false)") ;;
    *) options+=(--set "$1=true"); return 1 ;;
    esac
}

arguments_read() {
    while [ $# -gt 0 ]; do
        case $1 in
        --config) need_value "$1" $#; config=$2; shift ;;
        --run) need_value "$1" $#; run=$2; shift ;;
        --set) need_value "$1" $#; options+=(--set "$2"); shift ;;
        --preset) need_value "$1" $#; options+=(--set "preset=$2"); shift ;;
        --device) need_value "$1" $#; options+=(--set "device=$2"); shift ;;
        --use-memory-efficient)
            switch continual_learning.ewc_config.fisher_computation.use_memory_efficient "${2:-}" && shift
            ;;
        --dynamic-batch-size) switch training.dynamic_batch_size "${2:-}" && shift ;;
        --rebuild-cache) rebuild=--rebuild ;;
        --profile-memory) options+=(--set monitor.profile=true) ;;
        --plan) plan=1 ;;
        --check-data) check=1 ;;
        --detach) detach=1 ;;
        -h | --help) usage; exit 0 ;;
        *) fail $EXIT_PERMANENT "unknown option '$1'; see ${0##*/} --help" ;;
        esac
        shift
    done
    [ -r "$config" ] || fail $EXIT_PERMANENT "cannot read the pipeline file $config"
    config=$(realpath -- "$config")
    [ -z "$run" ] || run=$(realpath -m -- "$run")
}

# Sets command_again: the same pipeline, run and options.
command_remember() {
    command_again=$(printf '%q' "$(readlink -f -- "$0")")
    [ "$config" = "$config_default" ] || command_again+=$(printf ' --config %q' "$config")
    command_again+=$(printf ' --run %q' "$run")
    [ ${#options[@]} = 0 ] || command_again+=$(printf ' %q' "${options[@]}")
}

# Sources that come with Debian, and the group of packages (setup.sh) that each is of.
COMPOUNDS=/usr/share/RDKit/Data/Pains/test_data/wehi_mols.csv
STRUCTURES=/usr/share/openms/CHEMISTRY/HMDB2StructMapping.tsv
PRICES=runs/cache/usdchf.csv # exported from one

# pipeline_text FILE DEPTH: prints it and what it includes, without comments.
pipeline_text() {
    local included
    sed 's/#.*//' "$1" 2>/dev/null || return # prepare says what is wrong
    included=$(sed -nE "s/^include: *[\"']?([^\"' ]+).*/\1/p" "$1")
    [ -z "$included" ] || [ "$2" = 0 ] || (cd -- "$(dirname -- "$1")" && pipeline_text "$included" $(($2 - 1)))
}

# packages_install: what is missing of all that the pipeline is going to need, so that it is asked for once. Before the
# programs are built its text alone can be looked at, and sources given by --set are others.
packages_install() {
    local group= text
    text=$(pipeline_text "$config" 8)
    case " ${options[*]-} " in *source=*) text= ;; esac
    case $text in *"$PRICES"*) [ -e "$repository/$PRICES" ] || group=prices ;; esac
    case $text in *"$STRUCTURES"*) [ -e "$STRUCTURES" ] || group=structures ;; esac
    case $text in *"$COMPOUNDS"*) [ -e "$COMPOUNDS" ] || group=compounds ;; esac
    "$here/setup.sh" $group || exit
}

# ---- before the stages -------------------------------------------------------------------------------------

# work_run COMMAND...: what may take long, in the background: there a signal is heard meanwhile, and ends it (work_end).
work_run() {
    "$@" &
    wait $!
}

# work_end CODE: a signal before the stages are there.
work_end() {
    local workers
    workers=$(jobs -p)
    [ -z "$workers" ] || kill $workers 2>/dev/null
    { wait; } 2>/dev/null # without bash's remark
    exit "$1"
}

prepare() {
    local command=$1
    shift
    "$binaries/prepare" "$command" --config "$config" "${options[@]}" "$@"
}

# options_take: what these scripts themselves need of the pipeline file, in one call: each costs a start.
options_take() {
    local all
    all=$(prepare get name data.prepare prepare.labels memory.device_limit_mb run.on_end run.on_failure) || exit
    IFS=$'\037' read -r -d '' name kind labels device_limit on_end on_failure <<<"$all"
    on_failure=${on_failure%$'\n'}
}

# absolute FILE: a file named in a pipeline file is relative to the repository.
absolute() {
    case $1 in
    '' | /*) printf '%s\n' "$1" ;;
    *) printf '%s\n' "$repository/$1" ;;
    esac
}

# files_each COMMAND: calls it for each data file of the tasks with the name of a task that reads it, file,
# source, classes and rows of a micro-batch. The names are as in the pipeline file.
files_each() {
    local list task file source classes rows first
    list=$(prepare files) || exit
    while IFS=$'\037' read -r task file source classes rows first; do
        [ -z "$first" ] || "$1" "$task" "$file" "$source" "$classes" "$rows" </dev/null
    done <<<"$list"
}

# Sources that come with Debian in another form than the one that pipelines/*.yaml read.
source_fetch() {
    case $1 in
    "$repository/$PRICES") "$here/usdchf.sh" "$1" || exit ;; # bars.yaml
    "$COMPOUNDS") [ -e "$1" ] || "$here/setup.sh" compounds || exit ;;
    "$repository/runs/cache/manpages/"??) "$here/manpages.sh" "${1%/*}" || exit ;; # text.yaml
    "$STRUCTURES") [ -e "$1" ] || "$here/setup.sh" structures || exit ;;
    esac
}

prepared= # names of the files that were, each in newlines
file_prepare() {
    local file=$2 source=$3 classes=$4
    case $prepared in *$'\n'"$file"$'\n'*) return ;; esac
    prepared+=$'\n'$file$'\n'
    source_fetch "$source"
    mkdir -p -- "$(dirname -- "$file")" || exit $EXIT_TEMPORARY
    case $kind in
    idx)
        work_run "$binaries/prepare" idx --source "$source" --out "$file" $rebuild \
            ${classes:+--only "$classes" --labels "$labels"} || exit
        ;;
    *)
        work_run "$binaries/prepare" "$kind" --config "$config" "${options[@]}" --task "$1" --out "$file" $rebuild || exit
        ;;
    esac
}

# Names of files, those of the tasks too, are absolute from here on: all at once, since a name that is and one that is
# not are not known to be the same file's. Comparisons that compare_without_ewc adds follow their tasks, and no setting
# can name them.
names_absolute() {
    local list task rest i keys=(data.file data.source model.pretrained continual_learning.fisher_dir) values=() found=()
    list=$(prepare files --set continual_learning.compare_without_ewc=false) || exit
    while IFS=$'\037' read -r task rest; do
        keys+=("tasks.$task.file" "tasks.$task.source")
    done <<<"$list"
    list=$(prepare get "${keys[@]}") || exit
    mapfile -t -d $'\037' values < <(printf '%s' "$list")
    for i in "${!values[@]}"; do
        [ -z "${values[i]}" ] || found+=(--set "${keys[i]}=$(absolute "${values[i]}")")
    done
    [ ${#found[@]} = 0 ] || options+=("${found[@]}")
}

data_prepare() {
    names_absolute
    if [ "$kind" != none ]; then
        files_each file_prepare
    elif [ -n "$rebuild" ]; then
        fail $EXIT_PERMANENT "--rebuild-cache: nothing to rebuild, data.prepare is none in $config"
    fi
}

# What trainerd makes of the options is looked at before hours of work: the layers, what goes together, the device.
# Where that is a GPU what it has is told to the programs that have no library for it.
trainer_look() {
    local mib
    mib=$("$binaries/trainerd" --device --config "$config" "${options[@]}") || exit
    [ "$device_limit" != auto ] || [ "$mib" = 0 ] || options+=(--set "memory.device_limit_mb=$mib")
}

# The file is there: how it was made is no matter, and tasks that would make one file of two sources are refused.
file_check() {
    prepare check --set data.prepare=none --set "data.file=$2" || exit
}

file_describe() {
    "$binaries/loaderd" --describe --config "$config" "${options[@]}" --set data.prepare=none --set "data.file=$2" \
        --set "training.batch_size=$5" || exit
}

plan_print() {
    local text place=$run # whose file system the run will fill
    while [ ! -d "$place" ]; do place=$(dirname -- "$place"); done
    text=$(files_each file_describe && "$binaries/prepare" bases) || exit
    FINETUNED_PLACE=$place "$binaries/trainerd" --plan --config "$config" "${options[@]}" <<<"$text"
    exit
}

# directory_make: a directory with other files in it is not taken for a run, whose subdirectories we remove and
# write anew. RUN/pipeline.yaml comes with the first start; before it there are the lock and empty directories.
directory_make() {
    mkdir -p -- "$run" 2>/dev/null || fail $EXIT_PERMANENT "cannot make the run's directory $run"
    [ -e "$run/pipeline.yaml" ] || [ -z "$(find "$run" -mindepth 1 -maxdepth 2 ! -type d ! -name lock \
        ! -name 'pipeline.yaml*' -print -quit)" ] ||
        fail $EXIT_PERMANENT "$run holds other files and no run; choose another --run"
}

# ---- the lock ----------------------------------------------------------------------------------------------

# RUN/lock holds "pid start-time state" of the script that took it; state is attached, detached or cleaning (clean.sh).
lock_write() {
    printf '%s %s %s\n' $$ "$(process_start $$)" "$1" >"$run/lock"
}

# lock_wait: takes the lock that descriptor 9 is open on. It is held in passing by who looks whether it is, and by
# clean.sh while it removes something. A tree whose script was killed is stopped first.
lock_wait() {
    local pid=0 start= state=
    flock -w 0.5 9 && return
    read -r pid start state <&9
    if [ "$state" = detached ]; then
        fail $EXIT_PERMANENT "the run in $run is in use: it goes on detached; pipelines/attach.sh --run '$run' shows it"
    fi
    if [ -n "$start" ] && [ "$(process_start "$pid")" = "$start" ]; then
        [ "$state" = cleaning ] ||
            fail $EXIT_PERMANENT "the run in $run is in use by process $pid (${0##*/}); wait for it, stop it, or choose another --run"
        echo "run: waits for clean.sh (process $pid), which makes room in it"
        flock 9
        return
    fi
    echo "run: the script that started it (process ${pid:-?}) is gone; stopping what it left"
    stages_stop || stages_stop_each
    flock -w 30 9 || fail $EXIT_PERMANENT "the run in $run is in use: a process of it does not end"
}

# lock_take: makes the run's directory and holds RUN/lock on descriptor 9, which everything started from here inherits;
# again where clean.sh removed the directory meanwhile, whose lock would keep nobody out.
lock_take() {
    while :; do
        directory_make
        if { exec 9<>"$run/lock"; } 2>/dev/null; then
            lock_wait
            [ ! /proc/self/fd/9 -ef "$run/lock" ] || return 0
        elif [ -d "$run" ]; then
            fail $EXIT_PERMANENT "cannot write in the run's directory $run"
        fi
    done
}

# stages_stop: 1 if there is no s6-svscan that listens.
stages_stop() {
    local stage
    s6-svscanctl -t "$run/services" 2>/dev/null || return
    for stage in $STAGES; do
        s6-svc -d "$run/services/$stage/log" 2>/dev/null # services/log-run says why
    done
    return 0
}

# For a tree without its s6-svscan.
stages_stop_each() {
    local stage
    for stage in $STAGES; do
        s6-svc -xd "$run/services/$stage" 2>/dev/null
        s6-svc -xd "$run/services/$stage/log" 2>/dev/null
    done
}

# ---- the stages --------------------------------------------------------------------------------------------

# deaths_make: what services/finish keeps of deaths, as long as it can become, so that it can on a disk that is full.
deaths_make() {
    local stage
    rm -rf -- "${run:?}/deaths" && mkdir -- "$run/deaths" || return
    for stage in $STAGES; do
        printf '%-63s\n' 0 >"$run/deaths/$stage" && printf '%4095s\n' '' >"$run/deaths/$stage.verdict" || return
    done
}

service_write() {
    local directory=$run/services/$1
    mkdir -p -- "$directory/log" "$run/logs/$1" &&
        cp -- "$here/services/run" "$here/services/finish" "$directory/" &&
        cp -- "$here/services/log-run" "$directory/log/run" &&
        echo 3 >"$directory/notification-fd" &&
        echo 10000 >"$directory/timeout-kill" &&   # ms from SIGTERM to SIGKILL
        echo 20000 >"$directory/timeout-finish" && # ms that finish may take
        echo 12000 >"$directory/log/timeout-kill"  # after the stage's last lines
}

services_write() {
    local stage
    rm -rf -- "${run:?}/services" &&
        mkdir -p -- "$run/services/.s6-svscan" &&
        cp -- "$here/services/svscan-finish" "$run/services/.s6-svscan/finish" || return
    for stage in $STAGES; do
        service_write "$stage" || return
    done
}

launch_count() {
    local launch=0
    [ -f "$run/launch" ] && read -r launch <"$run/launch"
    launch=$((launch + 1))
    echo "$launch" >"$run/launch.tmp" && mv -- "$run/launch.tmp" "$run/launch"
    echo "$launch"
}

stages_start() {
    rm -f -- "$run/verdict"
    rm -rf -- "$run/exits"
    mkdir -p -- "$run/exits" "$run/report"
    deaths_make && services_write || fail $EXIT_TEMPORARY "cannot write what supervises the stages in $run (above)"
    export FINETUNED_BIN=$binaries FINETUNED_RUN=$run
    FINETUNED_LAUNCH=$(launch_count) || exit $EXIT_TEMPORARY
    export FINETUNED_LAUNCH
    export FINETUNED_ON_END=$on_end FINETUNED_ON_FAILURE=$on_failure
    # A session of its own: neither Ctrl-C nor a closed terminal reaches the stages.
    setsid s6-svscan -t 0 -c 64 "$run/services" >>"$run/logs/supervisor" 2>&1 </dev/null &
    supervisor=$!
    echo "$supervisor" >"$run/supervisor"
}

# stages_await: until every stage is supervised, so that attach.sh and restart.sh find it, or the run has ended already.
stages_await() {
    local tries=100 stage
    for stage in $STAGES; do
        until stage_is_supervised "$run" "$stage" || [ -e "$run/verdict" ] || ! kill -0 "$supervisor" 2>/dev/null ||
            [ $tries = 0 ]; do
            sleep 0.1
            tries=$((tries - 1))
        done
    done
}

stopped= progress_pid=
on_signal() {
    if [ -n "$stopped" ]; then
        echo "${0##*/}: still stopping (at most 10 s)"
        return
    fi
    stopped=$1
    kill "$progress_pid" 2>/dev/null # it would only wonder
    printf '\nrun: stopping\n'
    stages_stop || kill -TERM "$supervisor" # before it listens
}

on_hangup() {
    [ -z "$progress_pid" ] || kill "$progress_pid" 2>/dev/null
    lock_write detached
    exit 129
}

# Waits until s6-svscan has ended. If it was killed, its stages are stopped too.
stages_wait() {
    while kill -0 "$supervisor" 2>/dev/null; do
        { wait "$supervisor"; } 2>/dev/null # without bash's remark when it was killed
    done
    if [ -z "$stopped" ] && [ ! -e "$run/verdict" ]; then
        stages_stop_each
    fi
}

# ---- main --------------------------------------------------------------------------------------------------

launch() {
    arguments_read "$@"
    trap 'work_end 130' INT
    trap 'work_end 143' TERM
    trap 'work_end 129' HUP
    packages_install
    programs_build
    options_take
    [ -n "$run" ] || run=$repository/runs/$name
    if [ -n "$plan$check" ]; then
        trainer_look
        data_prepare
        [ -z "$check" ] || files_each file_check
        [ -n "$plan" ] || exec >/dev/null # what a plan refuses stops a run too, so one is made
        plan_print
    fi
    command_remember
    lock_take
    lock_write attached
    trainer_look
    data_prepare
    prepare run --run "$run" || exit
    if verdict_read "$run" && [ "$verdict_code" = 0 ]; then
        echo "run: $run is finished; its report:"
        run_conclude "$run"
    fi

    [ ! -e "$run/changed" ] || echo "run: goes on with other options: $(cat "$run/changed")"
    pending= # a signal meanwhile is heard when the stages can be told
    trap 'pending=INT' INT
    trap 'pending=TERM' TERM
    trap 'pending=HUP' HUP
    stages_start
    trap 'on_signal INT' INT
    trap 'on_signal TERM' TERM
    trap on_hangup HUP
    [ -z "$pending" ] || kill -s "$pending" $$
    echo "run: $run"
    [ -z "$detach" ] || stages_await
    if [ -n "$detach" ] && [ -z "$stopped" ]; then
        lock_write detached
        echo "run: detached; pipelines/attach.sh --run '$run' shows its progress"
        exit 0
    fi
    [ -n "$stopped" ] || progress_show "$run" "$supervisor"
    stages_wait
    progress_end
    if [ -n "$stopped" ] && ! verdict_read "$run"; then
        echo "run: stopped; to go on: $command_again"
        [ "$stopped" = INT ] && exit 130
        exit 143
    fi
    run_conclude "$run"
}
