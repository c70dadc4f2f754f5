#!/bin/bash
# sbatch slurm.sh PLAN RUN FOLDER: a search on as many nodes as the job has. FOLDER is shared by all of them and holds
# runs/ and data/. Some minutes before its time is up the search saves what runs, and the job goes back into the queue.
#SBATCH --job-name=tune-rh
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
plan=$1 run=$2 folder=$3

umask 077
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$folder/token-$SLURM_JOB_ID
od -vN 32 -An -tx1 /dev/urandom | tr -d ' \n' > "$RAY_AUTH_TOKEN_PATH"

mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
address_of() { getent ahostsv4 "$1" | awk 'NR == 1 { print $1 }'; }
gcs=$(address_of "${nodes[0]}"):$((20000 + SLURM_JOB_ID % 20000))

start_node() {
    srun --overlap --nodes=1 --ntasks=1 --nodelist="$1" ray start --block --disable-usage-stats \
        --node-ip-address="$(address_of "$1")" --num-cpus="$SLURM_CPUS_PER_TASK" "${@:2}" &
}
start_node "${nodes[0]}" --head --port="${gcs#*:}"
until (: < "/dev/tcp/${gcs/://}") 2> /dev/null; do sleep 1; done
for node in "${nodes[@]:1}"; do start_node "$node" --address="$gcs"; done
# The search takes what nodes there are when it joins.
python - "$gcs" "${#nodes[@]}" <<'END'
import sys, time, ray
ray.init(sys.argv[1], log_to_driver=False)
while sum(node["Alive"] for node in ray.nodes()) < int(sys.argv[2]):
    time.sleep(1)
END

words=(search "$plan" --name "$run")
[ -f "$folder/runs/$run/journal.jsonl" ] && words=(resume "$run")
tune-rh "${words[@]}" --address "$gcs" --runs-dir "$folder/runs" --data-dir "$folder/data" &
driver=$!
stopped=
trap 'stopped=1; kill -USR1 "$driver"' USR1 TERM
# A signal ends the wait, not the search.
while wait "$driver"; code=$?; kill -0 "$driver" 2> /dev/null; do :; done

rm -f "$RAY_AUTH_TOKEN_PATH"
[ -n "$stopped" ] && [ "$code" -gt 128 ] && scontrol requeue "$SLURM_JOB_ID"
kill $(jobs -p) 2> /dev/null
exit "$code"
