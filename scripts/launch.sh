#!/usr/bin/env bash
# One process per GPU, on this machine or on several; a run that has a checkpoint is continued.
#
#   scripts/launch.sh pretrain --tokenizer runs/tokenizer --out runs/photos
#   NODES=4 HEAD=node0:29500 JOB=photos scripts/launch.sh pretrain ... --out /shared/photos    (the same on each of the four)
#
# PROCESSES         processes on this machine; default: one per GPU
# NODES             machines; default: 1
# HEAD              with several machines: one of them, and a free port, where they meet
# JOB               with several machines: a name of the run, the same on all
# TORCHRUN_OPTIONS  more options of torchrun, such as --shutdown-timeout 120
# PYTHON            default: python
set -eo pipefail

out="" previous="" resume=()
for word in "$@"; do
    case "$previous" in --out) out="$word" ;; esac
    case "$word" in --out=*) out="${word#--out=}" ;; esac
    previous="$word"
done
if [[ -n "$out" && " $* " != *" --resume "* ]] && compgen -G "$out/checkpoints/step-*" > /dev/null; then
    resume=(--resume)
fi

if [[ "${NODES:-1}" == 1 ]]; then
    meeting=(--standalone)
else
    : "${HEAD:?with several machines, HEAD names one of them and a port, such as node0:29500}"
    meeting=(--nnodes "$NODES" --rdzv-backend c10d --rdzv-endpoint "$HEAD" --rdzv-id "${JOB:-mage}")
fi
read -r -a more <<< "${TORCHRUN_OPTIONS:-}"
exec "${PYTHON:-python}" -m torch.distributed.run --nproc-per-node "${PROCESSES:-gpu}" "${meeting[@]}" "${more[@]}" \
    -m mage "$@" "${resume[@]}"
