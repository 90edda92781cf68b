"""The command `doctor`."""

from __future__ import annotations

from pathlib import Path

import click

from cli.console import Console, example, shared_options
from cli.options import FILE


@click.command(epilog=example("lungcast doctor out"))
@click.argument("folder", type=FILE, default=Path("."))
@click.option("--json", "json_file", type=FILE, help="What was found as JSON, to attach to a question.")
@shared_options()
def doctor(console: Console, folder: Path, json_file: Path | None) -> None:
    """Look at the installation and this machine, and say whether the demo would run here.

    Versions, processor, threads, memory, GPU, what each extra would bring; every library is tried once. FOLDER
    (the current one unless given) is where results would go: its disk is looked at. Exit code 1 when something is
    in the way, with the remedy.
    """
    from dataclasses import asdict

    from segmentation.doctor import examine
    from standard_space.files import write_json

    findings = examine(folder)
    width = max(len(found.name) for found in findings)
    topic = ""
    for found in findings:
        if found.topic != topic:
            console.say(f"{chr(10) if topic else ''}{found.topic}")
            topic = found.topic
        remedy = f"; {found.remedy}" if found.remedy and not found.problem else ""
        console.say(f"  {found.name:<{width}}  {found.value}{remedy}")
    problems = [found for found in findings if found.problem]
    console.say()
    for found in problems:
        console.problem(f"{found.name}: {found.value}; {found.remedy}")
    if json_file is not None:
        write_json(json_file, {"demo_would_run": not problems, "findings": [asdict(one) for one in findings]})
        console.wrote({"findings": json_file})
    if problems:
        click.echo("the demo would not run here", err=True)
        raise click.exceptions.Exit(1)
    console.say("The demo would run here: `lungcast demo OUT`.")
