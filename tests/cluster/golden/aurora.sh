#!/bin/bash -l
#PBS -N aeris-1a2b3c
#PBS -l select=2
#PBS -l place=scatter
#PBS -l walltime=01:00:00
#PBS -l filesystems=home:flare
#PBS -q debug
#PBS -A weather
#PBS -j oe
#PBS -o /home/ada/.ipython/profile_default/log/ipengine-aeris-1a2b3c.log
#PBS -k doe
#PBS -r n

cd "$PBS_O_WORKDIR"
module load frameworks
export ZE_FLAT_DEVICE_HIERARCHY=FLAT
export OMP_NUM_THREADS=8
export CCL_PROCESS_LAUNCHER=pmix
export CCL_ATL_TRANSPORT=mpi
export CCL_KVS_MODE=mpi
export CCL_KVS_USE_MPI_RANKS=1
export CCL_KVS_CONNECTION_TIMEOUT=600
export CCL_CONFIGURATION=cpu_gpu_dpcpp
export CCL_CONFIGURATION_PATH=''
export CCL_ALLREDUCE_SCALEOUT='direct:0-1048576;rabenseifner:1048577-max'
export CCL_BCAST=double_tree
export CCL_ZE_CACHE_OPEN_IPC_HANDLES_THRESHOLD=1024
export CCL_ZE_IPC_EXCHANGE=sockets
export CCL_ATL_SYNC_COLL=1
export CCL_OP_SYNC=1
export FI_CXI_DEFAULT_CQ_SIZE=1048576
export FI_CXI_CQ_FILL_PERCENT=30
export FI_CXI_OFLOW_BUF_SIZE=8388608
export FI_CXI_RX_MATCH_MODE=hybrid
export FI_MR_CACHE_MONITOR=disabled
export FI_MR_ZE_CACHE_MONITOR_ENABLED=0
export GLOO_SOCKET_IFNAME=hsn0
export PALS_PING_PERIOD=240
export PALS_RPC_TIMEOUT=240
unset IPP_CONNECTION_INFO

exec mpiexec -n 24 --ppn 12 --no-abort-on-failure --cpu-bind list:1-8:9-16:17-24:25-32:33-40:41-48:53-60:61-68:69-76:77-84:85-92:93-100 \
    sh -c 'exec "$@" --IPEngine.id="${PALS_RANKID:-${OMPI_COMM_WORLD_RANK:-$PMI_RANK}}"' engine /opt/python/bin/python -m ipyparallel.engine --profile-dir=/home/ada/.ipython/profile_default --cluster-id=aeris-1a2b3c --IPEngine.wait_for_url_file=60 --IPEngine.timeout=300 --IPEngine.use_mpi=True --IPEngine.init_mpi=
