"""Plots of a run, for notebooks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Union

from ._core import Error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ._guard import Guard

Run = Union["Guard", Mapping[str, Any], str, "os.PathLike[str]"]


def plot(run: Run, *, log_scale: bool = True) -> Figure:
    """A figure of grad norm, limits, loss and skipped steps.

    `run` is a guard, what its `history` gave, or the path of a local history file; reading a file needs the command
    `gradwarden` on the PATH. Raises gradwarden.Error where matplotlib or the command is missing, or there are no steps.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Error("plot() needs matplotlib; install it") from error
    arrays = _arrays_of(run)
    if not len(arrays["step"]):
        raise Error("plot(): there are no steps yet")
    figure = Figure(figsize=(10, 6), layout="constrained")
    norms, losses = figure.subplots(2, 1, sharex=True)
    steps = arrays["step"]
    norms.plot(steps, arrays["grad_norm"], linewidth=0.8, label="grad norm")
    limits = [value if value and value > 0 else float("nan") for value in arrays["threshold"]]
    norms.plot(steps, limits, linewidth=0.8, linestyle="--", label="limit")
    skipped = [i for i, decision in enumerate(arrays["decision"]) if decision == "skip"]
    for i in skipped:
        norms.axvline(steps[i], color="tab:red", alpha=0.3, linewidth=1, label="skipped" if i == skipped[0] else None)
    if log_scale:
        norms.set_yscale("log", nonpositive="mask")
    norms.set_ylabel("grad norm")
    norms.legend(loc="upper right")
    losses.plot(steps, arrays["loss"], linewidth=0.8, color="tab:green")
    losses.set_ylabel("loss")
    losses.set_xlabel("step")
    return figure


def _arrays_of(run: Any) -> Mapping[str, Any]:
    if isinstance(run, Mapping):
        missing = {"step", "grad_norm", "threshold", "decision", "loss"} - set(run)
        if missing:
            raise Error(f"plot(): the run lacks {', '.join(sorted(missing))}; allowed: what guard.history gives")
        return run
    if hasattr(run, "history"):
        history: Mapping[str, Any] = run.history
        return history
    if isinstance(run, (str, os.PathLike)):
        return _from_file(os.fspath(run))
    raise Error(f"plot(): run is a {type(run).__name__}; allowed: a guard, its history, or a history file's path")


def _from_file(path: str) -> Mapping[str, Any]:
    command = os.environ.get("GRADWARDEN_COMMAND") or shutil.which("gradwarden")
    if command is None:
        raise Error("plot(): a history file is read by the command gradwarden, which is not on the PATH")
    done = subprocess.run([command, "export", path, "--format", "jsonl"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Error(f"plot(): {path}: {done.stderr.strip() or f'gradwarden export ended with {done.returncode}'}")
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    names = ("step", "grad_norm", "threshold", "decision", "loss")
    return {name: [_value(name, report.get(name)) for report in reports] for name in names}


def _value(name: str, value: Any) -> Any:
    if name in ("step", "decision"):
        return value
    try:
        return float(value)  # also of "NaN"
    except (TypeError, ValueError):
        return float("nan")
