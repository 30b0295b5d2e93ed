"""`m dev`, `m web` and `m worker`: the processes of a desk."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Annotated

import typer

from worker.commands.setting import read_settings

Port = Annotated[int | None, typer.Option(min=1, max=65535, help="The port of the web page. [M_PORT]")]
Host = Annotated[str | None, typer.Option(help="The address it listens on. [M_HOST]")]
Jobs = Annotated[
    str | None, typer.Option(help="Modules that define jobs: myapp.jobs,other.jobs. [M_JOB_MODULES]")
]


def dev(
    port: Port = None,
    host: Host = None,
    jobs: Jobs = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="No broker, no worker: the web process runs the jobs.")
    ] = False,
    reload: Annotated[bool, typer.Option("--reload", help="Start again when a file changes.")] = False,
) -> None:
    """Runs the whole desk on this machine: nats-server, migrations, web and worker."""
    settings = read_settings(M_HOST=host, M_PORT=port, M_JOB_MODULES=jobs)
    from worker.process.dev import run_dev

    raise typer.Exit(run_dev(settings, settings.port, settings.job_modules, memory=memory, reload=reload))


def web(port: Port = None, host: Host = None, jobs: Jobs = None) -> None:
    """Serves the page and the API. Without a broker URL it runs jobs as well."""
    read_settings(M_HOST=host, M_PORT=port, M_JOB_MODULES=jobs)
    command = [sys.executable, "-m", "webapp"]
    if os.name == "nt":
        raise typer.Exit(subprocess.call(command))
    os.execv(sys.executable, command)  # noqa: S606 # the same process goes on as the web process


worker_app = typer.Typer(invoke_without_command=True, no_args_is_help=False)


@worker_app.callback()
def worker(
    context: typer.Context,
    processes: Annotated[
        int | None, typer.Option(min=1, max=256, help="Worker processes. [M_WORKER_PROCESSES]")
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Jobs at a time in each process. [M_WORKER_CONCURRENCY]"),
    ] = None,
    queues: Annotated[
        str,
        typer.Option(
            help="Queues to take from, in this order, with weights if wanted: mail,imports:2. Default: all."
        ),
    ] = "",
    priorities: Annotated[str, typer.Option(help="Priorities to take: 0-3. 0 is the first.")] = "0-9",
    max_memory_mb: Annotated[
        float | None, typer.Option(min=32, help="Replace a process that has grown beyond this.")
    ] = None,
    max_jobs_per_process: Annotated[
        int | None, typer.Option(min=1, help="Replace a process after so many jobs.")
    ] = None,
    jobs: Jobs = None,
) -> None:
    """Runs jobs until it is told to stop; then what runs may finish for 25 seconds, and the rest goes to others."""
    if context.invoked_subcommand is not None:
        return
    settings = read_settings(M_JOB_MODULES=jobs)
    from worker.process.supervisor import run_supervisor

    try:
        code = run_supervisor(
            settings, processes, concurrency, queues, priorities, max_memory_mb, max_jobs_per_process
        )
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    raise typer.Exit(code)
