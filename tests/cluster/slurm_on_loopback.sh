#!/usr/bin/env bash
# Slurm with one node on this machine, for the test that really submits to it. Debian or Ubuntu, as root, after
#
#     apt-get install --no-install-recommends slurm-wlm munge
#
#     tests/cluster/slurm_on_loopback.sh start FOLDER     then   export SLURM_CONF=FOLDER/slurm.conf
#     tests/cluster/slurm_on_loopback.sh stop FOLDER
#
# Everything listens on loopback and lives in FOLDER: no service is enabled, and nothing in /etc is touched. The node is said to
# have more cores than it may have (SlurmdParameters=config_overrides), so that several engines fit a small machine. Processes are
# followed by their process group (proctrack/pgid), which asks neither for cgroups nor for systemd.
set -euo pipefail

command=${1:?start or stop}
folder=$(mkdir -p "${2:?a folder}" && cd "$2" && pwd)
host=$(hostname -s)

write_configuration() {
    cat > "$folder/slurm.conf" <<CONF
ClusterName=loopback
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${SLURMCTLD_PORT:-46817}
SlurmdPort=${SLURMD_PORT:-46818}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CryptoType=crypto/munge
CommunicationParameters=NoAddrCache
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_res
SelectTypeParameters=CR_Core
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
KillWait=5
SlurmdParameters=config_overrides
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 Boards=1 SocketsPerBoard=1 CoresPerSocket=8 ThreadsPerCore=1 State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=60 State=UP OverSubscribe=YES
CONF
}

start() {
    mkdir -p "$folder"/{state,spool,munge}
    write_configuration
    chown munge: "$folder/munge"
    [ -s "$folder/munge/key" ] || dd if=/dev/urandom of="$folder/munge/key" bs=128 count=1 status=none
    chown munge: "$folder/munge/key"
    chmod 600 "$folder/munge/key"
    setpriv --reuid munge --regid munge --clear-groups /usr/sbin/munged --force --key-file "$folder/munge/key" \
        --socket "$folder/munge/socket" --pid-file "$folder/munge/pid" --log-file "$folder/munge/log" --seed-file "$folder/munge/seed"
    /usr/sbin/slurmctld -f "$folder/slurm.conf"
    /usr/sbin/slurmd -f "$folder/slurm.conf" -N "$host"
    export SLURM_CONF=$folder/slurm.conf
    for _ in $(seq 60); do
        [ "$(sinfo --noheader --format %T 2>/dev/null)" = idle ] && echo "export SLURM_CONF=$SLURM_CONF" && return
        sleep 1
    done
    echo "The node did not become idle:" && sinfo && tail "$folder"/*.log
    return 1
}

stop() {
    for file in "$folder"/slurmd.pid "$folder"/slurmctld.pid "$folder"/munge/pid; do
        if [ -s "$file" ]; then kill "$(cat "$file")" || true; fi
    done
}

"$command"
