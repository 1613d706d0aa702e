#!/bin/bash
# finetune.sh - the main job: from a fresh clone to a trained model and its report, in one command (launch.sh).
set -u
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
config=$here/default.yaml
. "$here/launch.sh"

usage_begin() {
    cat <<'END'
usage: pipelines/finetune.sh [options]

  --config FILE              pipeline file (default: pipelines/default.yaml)
END
}

usage_example() {
    echo "example: pipelines/finetune.sh --run runs/lambda-500 --set continual_learning.ewc_config.lambda=500"
}

launch "$@"
