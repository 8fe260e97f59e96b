#!/usr/bin/env bash
# A Slurm of one node on loopback, for the tests: no systemd, no cgroups, no accounting. Needs root.
#
#   slurm.sh install   Debian's slurm-wlm and munge, whose services are kept from starting
#   slurm.sh start     the daemons, from SLURM_TEST_DIR (/tmp/sclatent-slurm); waits until the node is up
#   slurm.sh stop      ends them
#
# One thing lies outside that folder: a link at /etc/slurm/slurm.conf. The executor plugin takes
# SLURM_CONF out of a job's environment, so that srun in the job looks there.
set -euo pipefail

folder=${SLURM_TEST_DIR:-/tmp/sclatent-slurm}
conf=$folder/slurm.conf
link=/etc/slurm/slurm.conf

installed() { command -v slurmctld && command -v slurmd && command -v munged; } >/dev/null

install_packages() {
  installed && return
  local policy=/usr/sbin/policy-rc.d made=
  [ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy; chmod +x $policy; made=$policy; }
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends slurm-wlm munge >/dev/null
  [ -z "$made" ] || rm "$made"
}

configure() {
  mkdir -p "$folder"/{munge,state,spool,log} /etc/slurm
  chmod 755 "$folder" "$folder/munge"
  [ -s "$folder/munge/key" ] || (umask 077; head -c 128 /dev/urandom >"$folder/munge/key")
  local mb
  mb=$(awk '/MemTotal/ {printf "%d", $2 / 1024 * 0.95}' /proc/meminfo)
  cat >"$conf" <<END
ClusterName=local
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=16817
SlurmdPort=16818
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge/socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
MailProg=/bin/true
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0
# squeue, not sacct, knows how a job ended
AccountingStorageType=accounting_storage/none
MinJobAge=300
# no cgroups: memory is looked at every second, and what exceeds its limit is killed
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
# four, however many there are, so that every job of the profile fits
NodeName=localnode NodeAddr=127.0.0.1 CPUs=4 RealMemory=$mb State=UNKNOWN
PartitionName=cpu Nodes=localnode Default=YES MaxTime=02:00:00 DefaultTime=00:10:00 State=UP
END
  ln -sfn "$conf" $link
}

running() { [ -s "$1" ] && kill -0 "$(cat "$1")" 2>/dev/null; }

start() {
  [ "$(id -u)" = 0 ] || { echo "starting a Slurm needs root" >&2; exit 1; }
  installed || { echo "there is no Slurm here: run $0 install" >&2; exit 1; }
  [ ! -e $link ] || [ "$(readlink $link)" = "$conf" ] || { echo "$link is not ours" >&2; exit 1; }
  configure
  export SLURM_CONF=$conf
  running "$folder/munge/pid" || munged --force --socket="$folder/munge/socket" \
    --key-file="$folder/munge/key" --log-file="$folder/munge/log" \
    --pid-file="$folder/munge/pid" --seed-file="$folder/munge/seed"
  running "$folder/slurmctld.pid" || slurmctld -f "$conf"
  running "$folder/slurmd.pid" || slurmd -f "$conf" -N localnode
  for _ in $(seq 120); do
    timeout 3 sinfo -h -o %t 2>/dev/null | grep -qE '^(idle|mix|alloc)$' && return
    sleep 0.5
  done
  tail -n 20 "$folder"/log/*.log >&2
  echo "Slurm did not come up" >&2
  exit 1
}

stop() {
  for pid in slurmd.pid slurmctld.pid munge/pid; do
    if running "$folder/$pid"; then kill "$(cat "$folder/$pid")"; fi
  done
  [ "$(readlink $link)" != "$conf" ] || rm $link
}

case ${1:-} in
  install) install_packages ;;
  start) start ;;
  stop) stop ;;
  *) echo "usage: $0 install|start|stop" >&2; exit 2 ;;
esac
