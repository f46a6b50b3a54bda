#!/bin/bash -l
#PBS -N aeris-1a2b3c
#PBS -l select=3
#PBS -l place=scatter
#PBS -l walltime=36:00:00
#PBS -q workq
#PBS -j oe
#PBS -o /home/ada/.ipython/profile_default/log/ipengine-aeris-1a2b3c.log
#PBS -k doe
#PBS -r n

cd "$PBS_O_WORKDIR"
module load openmpi
source 'my venv/bin/activate'
export GREETING='a '"'"'b'"'"' $c'
unset IPP_CONNECTION_INFO

exec mpiexec -n 10 --ppn 4 \
    sh -c 'exec "$@" --IPEngine.id="${PALS_RANKID:-${OMPI_COMM_WORLD_RANK:-$PMI_RANK}}"' engine /opt/python/bin/python -m ipyparallel.engine --profile-dir=/home/ada/.ipython/profile_default --cluster-id=aeris-1a2b3c --IPEngine.wait_for_url_file=60 --IPEngine.timeout=300 --IPEngine.use_mpi=True --IPEngine.init_mpi=
