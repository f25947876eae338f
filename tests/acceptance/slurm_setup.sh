#!/usr/bin/env bash
# A Slurm of two nodes on this machine: slurm_setup.sh start|stop FOLDER
#
# Needs root, and Debian's slurm-wlm and munge:
#   apt-get install --no-install-recommends slurm-wlm munge
# Both slurmd listen on the loopback interface. Configuration, state and logs
# are in FOLDER; SLURM_CONF=FOLDER/slurm.conf makes the client commands find it.
set -euo pipefail
action="${1:?start or stop}" folder="$(realpath -m "${2:?a folder}")"
export SLURM_CONF="$folder/slurm.conf"

stop() {
  for file in "$folder"/*.pid; do
    if [ -e "$file" ]; then kill "$(cat "$file")" 2>/dev/null || true; fi
  done
}

if [ "$action" = stop ]; then stop; exit; fi

mkdir -p "$folder"/{state,spool-a,spool-b,munge}
chmod 700 "$folder/munge"
if [ ! -e "$folder/munge/key" ]; then
  (umask 077; head -c 1024 /dev/urandom > "$folder/munge/key")
fi
# A daemon of our own, beside one that the system may run.
munged --force --key-file="$folder/munge/key" --socket="$folder/munge/socket" \
  --pid-file="$folder/munged.pid" --log-file="$folder/munge/log" \
  --seed-file="$folder/munge/seed"

name="$(hostname -s)" half=$((($(nproc) + 1) / 2))
cat > "$SLURM_CONF" <<CONF
ClusterName=loopback
SlurmctldHost=$name(127.0.0.1)
SlurmctldPort=26817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool-%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd-%n.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmctldTimeout=30
SlurmdTimeout=60
KillWait=60
NodeName=a NodeHostname=$name NodeAddr=127.0.0.1 Port=26818 CPUs=$half
NodeName=b NodeHostname=$name NodeAddr=127.0.0.1 Port=26819 CPUs=$half
PartitionName=all Nodes=a,b Default=YES MaxTime=INFINITE State=UP
CONF
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF" -N a
slurmd -f "$SLURM_CONF" -N b
for _ in $(seq 30); do
  if [ "$(sinfo -h -o %T -N 2>/dev/null | grep -c idle)" = 2 ]; then exit 0; fi
  sleep 1
done
sinfo -N -l || true
tail -n 20 "$folder"/*.log >&2
exit 1
