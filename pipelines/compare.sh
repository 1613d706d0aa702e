#!/bin/bash
# compare.sh - several runs side by side: options that differ, what each reached, what it took.
#
# Builds what is missing; all else is `monitord --compare`, whose --help this prints.
#
# example: pipelines/compare.sh runs/fashion runs/lambda-500
set -u
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common.sh"

"$here/setup.sh" || exit
programs_build >&2
exec "$binaries/monitord" --compare "$@"
