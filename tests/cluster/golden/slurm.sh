#!/bin/bash -l
#SBATCH --job-name=aeris-1a2b3c
#SBATCH --nodes=2
#SBATCH --ntasks=16
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=7
#SBATCH --gpus-per-node=8
#SBATCH --partition=standard-g
#SBATCH --account=project_1
#SBATCH --time=1-12:00:00
#SBATCH --output=/home/ada/.ipython/profile_default/log/ipengine-aeris-1a2b3c.log
#SBATCH --no-requeue

module load rocm
unset IPP_CONNECTION_INFO

exec srun --kill-on-bad-exit=0 --cpus-per-task=7 \
    sh -c 'exec "$@" --IPEngine.id="$SLURM_PROCID"' engine /opt/python/bin/python -m ipyparallel.engine --profile-dir=/home/ada/.ipython/profile_default --cluster-id=aeris-1a2b3c --IPEngine.wait_for_url_file=60 --IPEngine.timeout=300 --IPEngine.use_mpi=True --IPEngine.init_mpi=
