#!/bin/bash
# web.sh - a page in the browser with what runs do: progress, memory, curves, advice, report, logs; stages can be
# stopped, started and restarted there. Prometheus finds figures at /metrics.
#
#   pipelines/web.sh [--runs DIR | --run DIR] [--port PORT] [--token-file FILE]
#
# It prints the page's address, which holds a secret of this start; whoever has it can see and steer the runs. Ctrl-C
# ends the page, and no run. It listens on this machine only; from another one: ssh -L 8650:127.0.0.1:8650 MACHINE
#
#   --runs DIR     all runs below DIR (default: runs in the repository)
#   --run DIR      that run alone
#   --port PORT    where it listens; 0: any free one (default: 8650)
#   --token-file FILE
#                  a secret for reading alone is written there, for you alone: Prometheus' credentials_file
#   --help         this
#
# example: pipelines/web.sh
set -u
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common.sh"

what=() others=()
while [ $# -gt 0 ]; do
    case $1 in
    --runs | --run) need_value "$1" $#; what=("$1" "$2"); shift ;;
    --port | --token-file) need_value "$1" $#; others+=("$1" "$2"); shift ;;
    -h | --help) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; exit 0 ;;
    *) fail $EXIT_PERMANENT "unknown option '$1'; accepted: --runs DIR, --run DIR, --port PORT, --token-file FILE, --help" ;;
    esac
    shift
done
"$here/setup.sh" || exit
programs_build
[ -x "$binaries/web" ] || fail $EXIT_PERMANENT "the page is not built: WEB=0 was given, or libmicrohttpd-dev is not where DEPS says"
if [ ${#what[@]} = 0 ]; then
    mkdir -p "$repository/runs"
    what=(--runs "$repository/runs")
fi
exec "$binaries/web" "${what[@]}" ${others[@]+"${others[@]}"}
