#!/bin/bash
# continual.sh - several tasks one after the other: what a model learns of each, and what it keeps of those before
# (launch.sh; docs/CONTINUAL.md tells what the report says).
set -u
here=$(dirname -- "$(readlink -f -- "${BASH_SOURCE[0]}")")
config=$here/continual.yaml
. "$here/launch.sh"

usage_begin() {
    cat <<'END'
usage: pipelines/continual.sh [options]

Trains the tasks of a pipeline file one after the other, with EWC and, where the file asks for it, once more without,
and reports how each is known after each.

  --config FILE              pipeline file (default: pipelines/continual.yaml, five permuted tasks; split.yaml and
                             text.yaml are others)
END
}

usage_example() {
    echo "example: pipelines/continual.sh --run runs/no-compare --set continual_learning.compare_without_ewc=false"
}

launch "$@"
