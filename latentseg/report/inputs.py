"""What the report is asked for: run folders and sweeps. Without PyTorch."""

from pathlib import Path

from latentseg.errors import RunError


def find_inputs(paths: list[Path]) -> tuple[list[Path], list[Path]]:
    """Run folders, and files that describe a sweep, in the order of the paths.

    Raises:
        RunError: A path is none of these.
    """
    runs, sweeps = [], []
    for path in paths:
        if (path / "config.yaml").is_file():
            runs.append(path)
        elif path.is_file():
            sweeps.append(path)
        else:
            sweeps += _sweep_files(path)
    return runs, sweeps


def _sweep_files(path: Path) -> list[Path]:
    if not path.is_dir():
        raise RunError(f"{path} does not exist: name run folders (config.yaml in them) or the root of a sweep")
    files = sorted((path / "sweeps").glob("*.json"))
    if not files:
        runs = sorted(str(file.parent) for file in path.glob("*/config.yaml"))
        hint = f"; name the runs in it: {' '.join(runs[:4])}" if runs else ""
        raise RunError(f"{path} is neither a run folder (no config.yaml) nor a sweep's root (no sweeps/*.json){hint}")
    return files
