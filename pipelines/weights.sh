#!/bin/bash
# weights.sh - weights out of a run for other tools (safetensors, PyTorch's names), and a look into such files.
#
# Builds what is missing; all else is `trainerd --weights`, whose --help this prints.
#
# example: pipelines/weights.sh export --run runs/fashion --task B --out fashion.safetensors
set -u
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
. "$here/common.sh"

"$here/setup.sh" || exit
programs_build >&2
exec "$binaries/trainerd" --weights "$@"
