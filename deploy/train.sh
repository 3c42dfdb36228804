#!/bin/sh
# What every process of a training runs: it starts the run, or resumes it if it has begun already.
#
#     train.sh RUN RECIPE [SETTINGS]
#
# torchrun, Slurm, Kubernetes and SkyPilot start this again after a failure. No rank writes to RUN
# before all of them are up, so all of them decide alike.
set -eu
run=$1
shift
if [ -e "$run/config.toml" ]; then
    exec nanogpt train --resume "$run"
fi
exec nanogpt train "$@" --run "$run"
