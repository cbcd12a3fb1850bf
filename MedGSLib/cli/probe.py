"""``medgs probe``: what this machine has, and which backend would be used and why."""

from __future__ import annotations

import argparse
import json
from typing import Any

from MedGSLib.cli.console import Console
from MedGSLib.cli.parser import add_command


def add_parser(commands: Any) -> None:
    """Add the grammar of this subcommand."""
    parser = add_command(commands, "probe", run, "tell what this machine has and which backend would be used")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace, console: Console) -> None:
    """Print the facts of this environment."""
    from MedGSLib.job.probe import one_line, probe

    facts = probe()
    if arguments.json:
        console.say(json.dumps(facts, indent=2, default=str))
        return
    lines = [f"{name.replace('_', ' '):<20} {_text(value)}" for name, value in facts.items()]
    console.result("\n".join([one_line(facts), *lines]), facts=facts)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_text(part)}" for name, part in value.items())
    return "none" if value is None else str(value)
