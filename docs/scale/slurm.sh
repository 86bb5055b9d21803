#!/bin/bash
# One worker of a study in each task of a job array:
#
#   sbatch slurm.sh STUDY
#
# The study has begun, with a database and a folder that all nodes see:
#
#   peftsearch search … --study STUDY --storage … --trials 500 --artifacts /shared/peftsearch
#
# ~/.peftsearch.env holds a line of this shell,
#
#   PEFTSEARCH_STORAGE='postgresql://owner:PASSWORD@db.example/studies'
#
# in single quotes, and is yours alone (chmod 600). A queue of more tasks than run at a time continues where the first
# ones' time ends; those that find the search ended end at once.

#SBATCH --job-name=peftsearch
#SBATCH --array=0-63%16
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --gres=gpu:1
#SBATCH --mem=24G
#SBATCH --time=04:00:00
# Five minutes before the end workers save what they train, and go.
#SBATCH --signal=TERM@300
# After the loss of a node, or to make room for others, the task is queued again.
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=peftsearch-%A-%a.log

set -euo pipefail

study=${1:?usage: sbatch slurm.sh STUDY}
secrets=${PEFTSEARCH_ENV:-$HOME/.peftsearch.env}
case $(stat -c %a "$secrets") in
    600 | 400) ;;
    *)
        echo "$secrets holds a password: chmod 600 $secrets" >&2
        exit 2
        ;;
esac
set -a
source "$secrets"
set +a

# Copies of the study and caches on the node's own disk: locks want one.
scratch=${TMPDIR:-/tmp}/peftsearch-$(id -u)
export PEFTSEARCH_CACHE=$scratch/cache

ended=0
srun --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    peftsearch worker "$study" --studies "$scratch/studies" \
    --device cuda --threads "$SLURM_CPUS_PER_TASK" || ended=$?

# 130: told to go, with all saved.
[ "$ended" -eq 130 ] || exit "$ended"
