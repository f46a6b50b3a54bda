#!/bin/bash -l
#SBATCH --job-name=aeris-1a2b3c
#SBATCH --nodes=1
#SBATCH --ntasks=1
#SBATCH --ntasks-per-node=1
#SBATCH --partition=debug
#SBATCH --time=01:00:00
#SBATCH --output=/home/ada/.ipython/profile_default/log/ipengine-aeris-1a2b3c.log
#SBATCH --no-requeue

unset IPP_CONNECTION_INFO

exec srun --kill-on-bad-exit=0 \
    sh -c 'exec "$@" --IPEngine.id="$SLURM_PROCID"' engine /opt/python/bin/python -m ipyparallel.engine --profile-dir=/home/ada/.ipython/profile_default --cluster-id=aeris-1a2b3c --IPEngine.wait_for_url_file=60 --IPEngine.timeout=300 --IPEngine.use_mpi=True --IPEngine.init_mpi=
