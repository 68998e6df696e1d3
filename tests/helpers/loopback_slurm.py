"""A real Slurm on this machine for the tests: munged, slurmctld and two slurmd "nodes", n1 and n2, on loopback."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
CONFIG = """\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdPidFile={folder}/%n.pid
SlurmdLogFile={folder}/%n.log
SlurmdSpoolDir={folder}/spool-%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
MinJobAge=86400
KillWait=2
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={first} CPUs=8 RealMemory=64000 State=UNKNOWN
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={second} CPUs=8 RealMemory=64000 State=UNKNOWN
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO
"""


def why_not() -> str | None:
    """Why no Slurm can run here; None when it can. As root on Debian it is installed when it is missing."""
    if os.geteuid():
        return "Slurm's daemons need root"
    if all(map(shutil.which, PROGRAMS)):
        return None
    if not shutil.which("apt-get"):
        return "Slurm is not installed, and there is no apt-get"
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    policy = Path("/usr/sbin/policy-rc.d")  # the packages' own services stay off
    made = not policy.exists()
    if made:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        subprocess.run(["apt-get", "update"], env=environment, check=False, **quiet)
        install = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
        subprocess.run(install, env=environment, check=False, **quiet)
    finally:
        if made:
            policy.unlink()
    return None if all(map(shutil.which, PROGRAMS)) else "Slurm cannot be installed here"


class LoopbackSlurm:
    """`with LoopbackSlurm(folder) as slurm`: a running cluster; `slurm.environment` makes sbatch and srun use it."""

    def __init__(self, folder: Path, port: int = 26817):
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self.port = port
        self.daemons: list[subprocess.Popen] = []

    def __enter__(self) -> LoopbackSlurm:
        (self.folder / "state").mkdir(parents=True)
        self.folder.chmod(0o755)  # munged wants its socket reachable by all
        config = CONFIG.format(folder=self.folder, port=self.port, first=self.port + 1, second=self.port + 2)
        (self.folder / "slurm.conf").write_text(config)
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        own = [f"--{name}={self.folder}/munge.{end}" for name, end in
               (("socket", "socket"), ("pid-file", "pid"), ("log-file", "log"), ("seed-file", "seed"))]  # fmt: skip
        try:
            self._start("munged", "--foreground", f"--key-file={key}", *own)
            self._wait(lambda: (self.folder / "munge.socket").exists(), "munged")
            self._start("slurmctld", "-D")
            self._wait(lambda: "is UP" in self.run("scontrol", "ping"), "slurmctld")
            for node in ("n1", "n2"):
                self._start("slurmd", "-D", "-N", node)
            self._wait(
                lambda: self.run("sinfo", "-h", "-N", "-t", "idle", "-o", "%N").split() == ["n1", "n2"], "slurmd"
            )
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        if len(self.daemons) > 1:
            subprocess.run(["scancel", "--user", "root"], env=self.environment, timeout=20, check=False)
            time.sleep(1)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def _start(self, *command: str) -> None:
        with (self.folder / f"{command[0]}-{len(self.daemons)}.out").open("w") as out:
            daemon = subprocess.Popen(command, env=self.environment, stdout=out, stderr=out, start_new_session=True)
        self.daemons.append(daemon)

    def _wait(self, done, what: str, seconds: float = 40) -> None:
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() > until:
                logs = "\n".join(path.read_text()[-500:] for path in self.folder.glob("*.log"))
                raise RuntimeError(f"{what} did not start:\n{logs}")
            time.sleep(0.2)

    def run(self, *command: str) -> str:
        """A command's standard output, with this cluster's settings."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False).stdout

    def job(self, number: str) -> dict[str, str]:
        """What `scontrol show job` says: JobState, ExitCode, StartTime and so on."""
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "show", "job", number)))

    def finish(self, numbers: list[str], seconds: float = 300) -> list[dict[str, str]]:
        """Wait until all jobs have ended."""
        until = time.monotonic() + seconds
        while any(self.job(n)["JobState"] in ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING") for n in numbers):
            if time.monotonic() > until:
                raise RuntimeError(self.run("squeue"))
            time.sleep(0.5)
        return [self.job(number) for number in numbers]
