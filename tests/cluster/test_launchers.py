"""Job scripts word by word, refusals, and the whole way from `Cluster.pbs`, `slurm` and `mpi` to engines that answer."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shlex
import shutil
import socket
import stat
import subprocess
import sys
import time
import tomllib
from collections import namedtuple
from pathlib import Path
from types import SimpleNamespace

import ipyparallel as ipp
import psutil
import pytest
from traitlets.config import Config

import aeris
from aeris.cluster import addresses, job_scripts, launchers
from aeris.cluster.job_scripts import PBSJob, SlurmJob
from aeris.cluster.launchers import MPIEngines, PBSEngines, SlurmEngines
from aeris.errors import AerisError, ClusterError, ConfigurationError, EngineLost

HERE = Path(__file__).parent
HOST = socket.gethostname()
ROOT = HERE.parents[1]
ENGINE = job_scripts.engine_command(
    ["/opt/python/bin/python", "-m", "ipyparallel.engine"], "/home/ada/.ipython/profile_default", "aeris-1a2b3c"
)
LOG = "/home/ada/.ipython/profile_default/log/ipengine-aeris-1a2b3c.log"


# ---- job scripts

SCRIPTS = {
    "aurora": (PBSJob("debug", "weather", filesystems=("home", "flare")), 24),
    "pbs": (
        PBSJob(
            "workq",
            machine="generic",
            walltime="36:00:00",
            ranks_per_node=4,
            modules=("openmpi",),
            setup=("source 'my venv/bin/activate'",),
            environment={"GREETING": "a 'b' $c"},
        ),
        10,
    ),
    "slurm": (SlurmJob("standard-g", "project_1", "1-12:00:00", ranks_per_node=8, gpus_per_node=8, cpus_per_rank=7, modules=("rocm",)), 16),
    "slurm_least": (SlurmJob("debug"), 1),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_job_script_is_the_one_on_file(name):
    job, engines = SCRIPTS[name]
    assert job.script(engines, "aeris-1a2b3c", LOG, ENGINE) == (HERE / "golden" / f"{name}.sh").read_text()


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_job_script_is_good_bash(name):
    subprocess.run(["bash", "-n", HERE / "golden" / f"{name}.sh"], check=True)


def test_awkward_values_reach_the_engine_as_they_are(tmp_path):
    """Run by bash, with commands in place of mpiexec and the engine that show what they were given."""
    value = "a 'b' $HOME `c` \"d\"\ne"
    shown = tmp_path / "shown"
    job = PBSJob("q", machine="generic", environment={"VALUE": value}, setup=('mpiexec() { shift 4; "$@"; }', 'exec() { "$@"; }'))
    command = [
        sys.executable,
        "-c",
        "import os, sys, json; json.dump([os.environ['VALUE'], sys.argv[1:]], open(sys.argv[1], 'w'))",
        str(shown),
    ]
    script = job.script(1, "name", "/dev/null", command)
    subprocess.run(["bash", "-c", script], check=True, env={**os.environ, "PBS_O_WORKDIR": str(tmp_path), "PALS_RANKID": "3"})
    assert json.loads(shown.read_text()) == [value, [str(shown), "--IPEngine.id=3"]]


def test_ranks_of_aurora_are_bound_to_cores_of_one_socket_and_never_to_those_of_the_system():
    bound = [range(int(first), int(last) + 1) for first, last in (cores.split("-") for cores in job_scripts.AURORA.cpu_bind)]
    cores = [core for rank in bound for core in rank]
    assert len(bound) == job_scripts.AURORA.ranks_per_node and len(set(cores)) == len(cores)
    assert not {0, 52} & set(cores) and max(cores) < 104
    assert all((rank[0] < 52) == (rank[-1] < 52) for rank in bound)
    assert {len(rank) for rank in bound} == {int(job_scripts.AURORA.environment["OMP_NUM_THREADS"])}


def test_a_dry_run_returns_the_script_and_starts_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    pbs = aeris.Cluster.pbs(2, "debug", "weather", directory=tmp_path, dry_run=True)
    slurm = aeris.Cluster.slurm(2, "debug", ranks_per_node=3, directory=tmp_path, dry_run=True)
    mpi = aeris.Cluster.mpi(3, arguments=["--hostfile", "my hosts"], directory=tmp_path, dry_run=True)
    assert "#PBS -l select=2\n" in pbs and "mpiexec -n 24 --ppn 12" in pbs
    assert "#SBATCH --ntasks=6\n" in slurm and "srun" in slurm
    assert mpi.startswith("mpiexec -n 3 --hostfile 'my hosts' env ")
    assert {process.pid for process in psutil.Process().children(recursive=True)} == before
    assert not [path for folder in ("log", "pid", "security") for path in (tmp_path / folder).glob("*")]


def test_a_notebook_in_a_job_of_aurora_places_engines_as_the_job_script_does(tmp_path):
    line = aeris.Cluster.mpi(24, machine="aurora", environment={"CCL_BCAST": "ring"}, directory=tmp_path, dry_run=True)
    script = aeris.Cluster.pbs(2, "debug", "weather", directory=tmp_path, dry_run=True)
    placement = shlex.join(["mpiexec", "-n", "24", *job_scripts.AURORA.placement(12)])
    assert line.startswith(f"{placement} env ZE_FLAT_DEVICE_HIERARCHY=FLAT ") and f"exec {placement} " in script
    assert " CCL_BCAST=ring " in line and "double_tree" not in line


# ---- refusals

PBS = {"nodes": 1, "queue": "debug", "account": "weather"}
SLURM = {"nodes": 1, "partition": "debug"}


@pytest.mark.parametrize(
    ("make", "arguments", "found"),
    [
        ("pbs", {**PBS, "nodes": 0}, "nodes=0"),
        ("pbs", {**PBS, "nodes": 1.5}, "nodes=1.5"),
        ("pbs", {**PBS, "walltime": "1h"}, "walltime='1h'"),
        ("pbs", {**PBS, "walltime": "01:60:00"}, "walltime='01:60:00'"),
        ("pbs", {**PBS, "walltime": "00:00:00"}, "walltime='00:00:00'"),
        ("pbs", {**PBS, "account": None}, "account=None"),
        ("pbs", {**PBS, "account": ""}, "account=''"),
        ("pbs", {**PBS, "queue": "debug\n#PBS -A other"}, "queue="),
        ("pbs", {**PBS, "filesystems": ()}, "filesystems="),
        ("pbs", {**PBS, "filesystems": "home:flare"}, "filesystems="),
        ("pbs", {**PBS, "filesystems": ["home\nflare"]}, "filesystems="),
        ("pbs", {**PBS, "ranks_per_node": 13}, "ranks_per_node=13"),
        ("pbs", {**PBS, "ranks_per_node": 0}, "ranks_per_node=0"),
        ("pbs", {**PBS, "machine": "summit"}, "machine='summit'"),
        ("pbs", {**PBS, "environment": {"A=1; B": "2"}}, "environment"),
        ("pbs", {**PBS, "setup": "module load x"}, "setup="),
        ("pbs", {**PBS, "interface": "hsn77"}, "interface='hsn77'"),
        ("pbs", {**PBS, "address": "198.51.100.7"}, "address='198.51.100.7'"),
        ("slurm", {**SLURM, "nodes": -1}, "nodes=-1"),
        ("slurm", {**SLURM, "walltime": 60}, "walltime=60"),
        ("slurm", {**SLURM, "partition": ""}, "partition=''"),
        ("slurm", {**SLURM, "gpus_per_node": 0}, "gpus_per_node=0"),
        ("slurm", {**SLURM, "ranks_per_node": True}, "ranks_per_node=True"),
        ("mpi", {"engines": 0}, "engines=0"),
        ("mpi", {"engines": 1, "machine": "summit"}, "machine='summit'"),
    ],
)
def test_what_a_batch_system_would_refuse_is_refused_first(make, arguments, found, tmp_path):
    with pytest.raises(ConfigurationError) as refusal:
        getattr(aeris.Cluster, make)(**arguments, directory=tmp_path)
    assert refusal.value.found.startswith(found) and refusal.value.rule and refusal.value.remedy
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("make", "arguments"), [("pbs", PBS), ("slurm", SLURM), ("mpi", {"engines": 1})])
def test_a_machine_without_the_batch_system_says_so(make, arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ClusterError, match=r"There is no '(qsub|sbatch|mpiexec)' on this machine"):
        getattr(aeris.Cluster, make)(**arguments, address="127.0.0.1", directory=tmp_path / "profile")


def test_blanks_in_the_path_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="no blanks"):
        aeris.Cluster.slurm(**SLURM, directory=tmp_path / "my profile", dry_run=True)


# ---- where the controller listens

Interface = namedtuple("Interface", ["family", "address"])
State = namedtuple("State", ["isup"])


def interfaces(monkeypatch, down=(), **there):
    """Makes this machine one with other interfaces."""
    found = {name.replace("_", "-"): [Interface(2, address)] for name, address in there.items()}
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    monkeypatch.setattr(psutil, "net_if_stats", lambda: {name: State(name not in down) for name in found})


def test_the_controller_listens_on_a_fast_network_if_there_is_one(monkeypatch):
    interfaces(monkeypatch, lo="127.0.0.1", eth0="10.0.0.1", ib0="10.1.0.1", hsn1="10.2.0.2", docker0="172.17.0.1")
    assert addresses.choose_address() == "10.2.0.2"
    assert addresses.choose_address(interface="ib0") == "10.1.0.1"
    assert addresses.choose_address(address="10.0.0.1") == "10.0.0.1"


def test_it_passes_over_networks_that_lead_nowhere(monkeypatch):
    interfaces(monkeypatch, lo="127.0.0.1", br_1="172.18.0.1", hsn0="10.2.0.1", usb0="169.254.3.2", eno1="10.0.0.1", down=("hsn0",))
    assert addresses.choose_address() == "10.0.0.1"
    with pytest.raises(ConfigurationError, match=r"eno1 \(10\.0\.0\.1\)"):
        addresses.choose_address(interface="hsn0")


def test_a_machine_by_itself_listens_on_loopback(monkeypatch):
    interfaces(monkeypatch, lo="127.0.0.1", docker0="172.17.0.1")
    assert addresses.choose_address() == "127.0.0.1"


def test_the_controller_is_told_its_address_and_many_engines_get_more_time(tmp_path):
    few, many = (aeris.Cluster.mpi(count, command=sys.executable, address="127.0.0.1", directory=tmp_path)._cluster for count in (4, 4000))
    assert few.controller_ip == few.controller_location == "127.0.0.1"
    assert "--HeartMonitor.period=1000" in few.controller_args and "--HeartMonitor.period=10000" in many.controller_args
    assert "--IPController.registration_timeout=600" in many.controller_args


def limits(monkeypatch, soft: int, hard: int) -> list[tuple[int, int]]:
    """Makes this machine one with other limits of open files; the limits that are set."""
    made: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: made.append(pair))
    return made


def test_the_controller_may_open_a_file_for_each_connection(monkeypatch):
    made = limits(monkeypatch, 1024, 65536)
    launchers.allow_files(24)
    assert made == []
    launchers.allow_files(12000)
    assert made == [(48256, 65536)]


def test_more_engines_than_the_machine_has_files_for_are_refused(monkeypatch):
    made = limits(monkeypatch, 1024, 4096)
    with pytest.raises(ClusterError, match=r"1200 engines need 5056 open files, and this machine allows 4096.*at most 960 engines"):
        launchers.allow_files(1200)
    launchers.allow_files(960)
    assert made == [(4096, 4096)]


# ---- ipyparallel's own way in


def test_the_launchers_are_ipyparallels_by_name(tmp_path, monkeypatch):
    """As an installation would register them."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["ipyparallel.engine_launchers"]
    information = tmp_path / "declared-0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: declared\nVersion: 0\n")
    lines = [f"{name} = {value}" for name, value in declared.items()]
    (information / "entry_points.txt").write_text("\n".join(["[ipyparallel.engine_launchers]", *lines]))
    monkeypatch.syspath_prepend(tmp_path)
    for name, launcher in {"aeris-mpi": MPIEngines, "aeris-pbs": PBSEngines, "aeris-slurm": SlurmEngines}.items():
        cluster = ipp.Cluster(engines=name, profile_dir=str(tmp_path / "profile"), shutdown_atexit=False)
        assert cluster.engine_launcher_class is launcher


def test_a_launcher_comes_back_from_the_clusters_file_without_being_registered(tmp_path):
    cluster = ipp.Cluster(engines=PBSEngines, profile_dir=str(tmp_path), shutdown_atexit=False)
    name = cluster.to_dict()["engines"]["class"]
    assert ipp.Cluster(engines=name, profile_dir=str(tmp_path), shutdown_atexit=False).engine_launcher_class is PBSEngines


@pytest.mark.parametrize(
    ("launcher", "options"),
    [(PBSEngines, {"settings": {"queue": "q", "machine": "generic"}}), (SlurmEngines, {"settings": {"partition": "q"}}), (MPIEngines, {})],
)
def test_neither_script_nor_environment_nor_command_line_holds_the_keys(launcher, options, tmp_path, monkeypatch):
    """ipyparallel puts the keys into the launcher's environment; they must not go from there to where others can read them."""
    monkeypatch.setenv("IPP_CONNECTION_INFO", "sesame")
    engines = launcher(profile_dir=str(tmp_path), cluster_id="aeris-1", engine_set_id="e", n=2, **options)
    engines.environment["IPP_CONNECTION_INFO"] = "sesame"
    assert "IPP_CONNECTION_INFO" not in engines.get_env()
    assert "sesame" not in " ".join(engines.args)
    if launcher is not MPIEngines:
        monkeypatch.setattr(engines, "submit_command", ["sh", "-c", "env; echo 7"])
        monkeypatch.setattr(engines, "job_id_regexp", launchers.re.compile("(?s).*"))
        assert "sesame" not in engines.start(2) and "PATH=" in engines.job_id
        script = Path(engines.batch_file)
        assert "sesame" not in script.read_text() and stat.S_IMODE(script.stat().st_mode) == 0o700


# ---- whole ways


@pytest.fixture
def batch_system(tmp_path, monkeypatch) -> Path:
    """A PBS that runs its jobs on this machine; the folder of its books."""
    books = tmp_path / "books"
    books.mkdir()
    monkeypatch.setenv("STAND_IN_FOLDER", str(books))
    monkeypatch.setenv("PATH", f"{HERE / 'commands'}:{os.environ['PATH']}")
    monkeypatch.setattr(PBSEngines.poll_seconds, "default_value", 0.2)
    return books


ENVIRONMENT = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def pbs(tmp_path: Path, **changes) -> aeris.Cluster:
    """Two engines in a job of the stand-in, whose login shell has the stand-ins first."""
    arguments = {
        "nodes": 1,
        "queue": "debug",
        "machine": "generic",
        "filesystems": (),
        "ranks_per_node": 2,
        "setup": [f"export PATH={HERE / 'commands'}:$PATH"],
        "environment": ENVIRONMENT,
        "address": "127.0.0.1",
        "directory": tmp_path / "profile",
        "timeout": 90,
    }
    return aeris.Cluster.pbs(**{**arguments, **changes})


def variables_of(cluster: aeris.Cluster) -> list[dict[str, str]]:
    """The environment of each engine, as it sees it."""
    cluster.client[:].execute("import os; seen = dict(os.environ)", block=True)
    return cluster.client[:].pull("seen", block=True)


def processes_of(profile: Path) -> list[int]:
    """Processes of this machine that belong to a profile."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("IPP_PROFILE_DIR") == str(profile):
                found.append(process.pid)
    return found


def gone(processes: list[int], within: float = 20.0) -> bool:
    """Whether all of these processes end in time."""
    deadline = time.monotonic() + within
    while any(psutil.pid_exists(process) and psutil.Process(process).status() != psutil.STATUS_ZOMBIE for process in processes):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def check_engines(cluster: aeris.Cluster, count: int) -> list[int]:
    """Engines answer, numbered as their ranks, with their keys from a file that is their owner's; their processes."""
    engines = cluster.check_versions()
    assert [engine["engine"] for engine in engines] == list(range(count)) == cluster.client.ids
    seen = variables_of(cluster)
    assert not [variables for variables in seen if "IPP_CONNECTION_INFO" in variables]
    assert {variables["OMP_NUM_THREADS"] for variables in seen} == {"1"}
    file = Path(cluster._cluster.controller.connection_files["engine"])
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    keys = [value for name, value in json.loads(file.read_text()).items() if "key" in name and value]
    assert keys
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    for written in (file.parents[1] / "log").iterdir():  # scripts and logs
        assert not [key for key in keys if key in written.read_text()]
    return [engine["process"] for engine in engines]


@pytest.mark.full
def test_pbs_starts_engines_that_answer_and_stops_them(tmp_path, batch_system):
    with pbs(tmp_path) as cluster:
        ranks = [variables["PALS_RANKID"] for variables in variables_of(cluster)]
        assert ranks == ["0", "1"]
        processes = check_engines(cluster, 2)
        key = json.loads(Path(cluster._cluster.controller.connection_files["engine"]).read_text())["curve_serverkey"]
        assert key not in (batch_system / "1001.sh").read_text() + (batch_system / "1001.submission").read_text()
        attached = aeris.Cluster.attach(cluster.name, tmp_path / "profile")
        assert attached._cluster.engine_set.job_id == "1001.stand-in" and len(attached.check_versions()) == 2
        attached.client.close()
    assert gone(processes)
    assert (batch_system / "1001.ended").exists()


@pytest.mark.full
def test_ipyparallel_by_itself_starts_engines_in_a_job(tmp_path, batch_system):
    settings = {"queue": "debug", "machine": "generic", "ranks_per_node": 2, "environment": ENVIRONMENT}
    config = Config({"PBSEngines": {"settings": {**settings, "setup": [f"export PATH={HERE / 'commands'}:$PATH"]}}})
    cluster = ipp.Cluster(engines=PBSEngines, n=2, config=config, profile_dir=str(tmp_path / "profile"), load_profile=False)
    with cluster as client:
        client.wait_for_engines(2, timeout=60)
        processes = client[:].apply_sync(os.getpid)
    assert len(processes) == 2 and gone(processes)


@pytest.mark.full
def test_a_job_that_pbs_refuses_is_told_in_its_words(tmp_path, batch_system):
    (batch_system / "refuse").write_text("qsub: Invalid credential for account weather")
    with pytest.raises(ClusterError, match=r"qsub refused .*32.*Invalid credential for account weather"):
        pbs(tmp_path).start(progress=False)
    assert not list((tmp_path / "profile" / "security").glob("cluster-*.json"))
    assert gone(processes_of(tmp_path / "profile"))


@pytest.mark.full
def test_a_job_that_ends_too_soon_is_told_with_its_last_lines(tmp_path, batch_system):
    started = time.monotonic()
    with pytest.raises(ClusterError, match=r"2 of 2 engines did not start(?s:.)*no such module: frameworks\n\(job 1001\.stand-in, "):
        pbs(tmp_path, setup=["echo before", "echo no such module: frameworks >&2", "exit 3"]).start(progress=False)
    assert time.monotonic() - started < 60


@pytest.mark.full
def test_time_in_the_queue_does_not_count(tmp_path, batch_system):
    """While PBS says that the job waits, no timeout passes; once it says that it runs, one does."""
    (batch_system / "state").write_text("Q")
    cluster = pbs(tmp_path, setup=[f"while grep -q Q {batch_system / 'state'}; do sleep 0.2; done", "sleep 60"], timeout=3)
    release = subprocess.Popen(["sh", "-c", f"sleep 9; echo R > {batch_system / 'state'}"])
    started = time.monotonic()
    with pytest.raises(ClusterError, match=r"did not start within 3 s; they must reach the controller at 127\.0\.0\.1"):
        cluster.start(progress=False)
    assert release.poll() == 0 and time.monotonic() - started > 9
    assert (batch_system / "1001.ended").exists()


@pytest.mark.full
def test_a_job_that_ends_takes_its_engines_and_the_notebook_says_so(tmp_path, batch_system, monkeypatch):
    """As at the end of its wall time; no engine can be started in the place of another, and none is left."""
    with pbs(tmp_path) as cluster:
        monkeypatch.setattr(cluster, "begin", lambda specification: cluster.client[:].apply_async(time.sleep, 600))
        job = cluster._submit("sleeping", SimpleNamespace(together=True), restarts=1)
        time.sleep(1)
        subprocess.run(["qdel", "1001.stand-in"], check=True)
        ended = time.monotonic()
        with pytest.raises(EngineLost, match=r"^No engine is left.*Start a cluster, and the same job again"):
            job.wait(timeout=60)
        assert time.monotonic() - ended < 15
        assert str(job.losses[0]).startswith(f"rank 0 (engine 0 on {HOST}), rank 1 (engine 1 on {HOST}) has gone while sleeping")


@pytest.mark.full
def test_mpi_starts_engines_by_one_mpiexec(tmp_path, batch_system):
    with aeris.Cluster.mpi(2, environment=ENVIRONMENT, address="127.0.0.1", directory=tmp_path / "profile") as cluster:
        processes = check_engines(cluster, 2)
        assert len({psutil.Process(process).ppid() for process in processes}) == 1
    assert gone(processes)


@pytest.mark.full
def test_an_mpiexec_that_ends_too_soon_is_told_at_once(tmp_path):
    cluster = aeris.Cluster.mpi(2, "sh -c 'echo no fabric; exit 3'", address="127.0.0.1", directory=tmp_path / "profile", timeout=60)
    started = time.monotonic()
    with pytest.raises(ClusterError, match=r"2 of 2 engines did not start\. .*no fabric"):
        cluster.start(progress=False)
    assert time.monotonic() - started < 30


@pytest.mark.full
@pytest.mark.skipif(shutil.which("mpiexec.openmpi") is None, reason="Open MPI is not installed (mpiexec.openmpi)")
def test_open_mpi_starts_engines(tmp_path):
    arguments = ["--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "--mca", "btl", "self,vader"]
    with aeris.Cluster.mpi(
        2, "mpiexec.openmpi", arguments, environment=ENVIRONMENT, address="127.0.0.1", directory=tmp_path / "profile", timeout=90
    ) as cluster:
        processes = check_engines(cluster, 2)
    assert gone(processes)


def slurm_lacks() -> str:
    """Why jobs cannot be submitted to Slurm here; empty if they can."""
    if shutil.which("sbatch") is None:
        return "Slurm is not installed (sbatch)"
    asked = subprocess.run(["scontrol", "ping"], capture_output=True, text=True, check=False, timeout=20)
    return "" if "is UP" in asked.stdout else "Slurm does not run; tests/cluster/slurm_on_loopback.sh starts one"


def slurm(tmp_path: Path, **changes) -> aeris.Cluster:
    """Two engines in a job of Slurm's default partition."""
    partitions = subprocess.run(["sinfo", "--noheader", "--format=%P"], capture_output=True, text=True, check=True).stdout.split()
    partition = next(name for name in partitions if name.endswith("*")).rstrip("*")
    arguments = {"ranks_per_node": 2, "walltime": "00:05:00", "environment": ENVIRONMENT, "address": "127.0.0.1", "timeout": 90}
    return aeris.Cluster.slurm(1, partition, directory=tmp_path / "profile", **{**arguments, **changes})


@pytest.mark.full
def test_slurm_starts_engines_that_answer_and_stops_them(tmp_path, monkeypatch):
    if reason := slurm_lacks():
        pytest.skip(reason)
    monkeypatch.setattr(SlurmEngines.poll_seconds, "default_value", 0.5)
    with slurm(tmp_path) as cluster:
        processes = check_engines(cluster, 2)
        seen = variables_of(cluster)
        assert [variables["SLURM_PROCID"] for variables in seen] == ["0", "1"]
        job = seen[0]["SLURM_JOB_ID"]
        key = json.loads(Path(cluster._cluster.controller.connection_files["engine"]).read_text())["curve_serverkey"]
        script = subprocess.run(["scontrol", "write", "batch_script", job, "-"], capture_output=True, text=True, check=True).stdout
        assert "srun" in script and key not in script
    assert gone(processes)


@pytest.mark.full
def test_what_slurm_refuses_and_what_ends_too_soon_is_told(tmp_path, monkeypatch):
    if reason := slurm_lacks():
        pytest.skip(reason)
    monkeypatch.setattr(SlurmEngines.poll_seconds, "default_value", 0.5)
    with pytest.raises(ClusterError, match=r"sbatch refused .*invalid partition"):
        aeris.Cluster.slurm(1, "no-such-partition", address="127.0.0.1", directory=tmp_path / "a").start(progress=False)
    with pytest.raises(ClusterError, match="no such module: rocm"):
        slurm(tmp_path, setup=["echo no such module: rocm", "exit 3"]).start(progress=False)


def test_every_refusal_is_of_the_family():
    assert issubclass(ClusterError, AerisError) and issubclass(ConfigurationError, AerisError)
