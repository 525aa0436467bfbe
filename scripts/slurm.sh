#!/usr/bin/env bash
# A training under SLURM that survives time limits and preemption: sbatch scripts/slurm.sh pretrain ... --out /shared/photos
#
# 120 seconds before the end SLURM sends SIGTERM to this script, which hands it on: the step is finished and saved, and
# the job is put back into the queue, where it continues. Options of sbatch on the command line override those below.
#SBATCH --job-name=mage
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -o pipefail

hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export NODES="${SLURM_NNODES:-1}" JOB="$SLURM_JOB_ID" PROCESSES="${PROCESSES:-${SLURM_GPUS_ON_NODE:-gpu}}"
export HEAD="${hosts%%$'\n'*}:$((20000 + SLURM_JOB_ID % 20000))"

# SLURM runs a copy of this script, so that $0 does not say where its neighbour is.
srun --kill-on-bad-exit=1 "${SLURM_SUBMIT_DIR:-.}/scripts/launch.sh" "$@" &
step=$!
stopped=""
trap 'stopped=yes; kill -TERM "$step" 2> /dev/null' TERM

wait "$step"
code=$?
if [[ -n "$stopped" ]]; then # the signal ended the wait; the training is still saving
    wait "$step"
    code=$?
fi
if [[ -n "$stopped" && "$code" != 0 ]]; then
    echo "job $SLURM_JOB_ID was stopped and goes back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
