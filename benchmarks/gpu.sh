#!/bin/sh
# On a machine with a GPU and its own PyTorch, without a network: install what is carried, then benchmarks/gpu.py.
#
#     sh benchmarks/gpu.sh WHEELS CAMVID OUT.json [MINUTES [further options of gpu.py]]
#
# WHEELS is a folder of wheels that the machine lacks; how to fill it: docs/gpu.md. They go into a folder of their own,
# as a virtual environment would not see the packages of the one that holds PyTorch. PYTHON names another interpreter.
set -eu
wheels=$1 data=$2 out=$3 minutes=${4:-9}
shift 3
[ $# -eq 0 ] || shift
here=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if ls "$wheels"/*.whl >/dev/null 2>&1; then
    "$python" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl
fi
export PYTHONPATH="$here:$site${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
"$python" - "$here/pyproject.toml" <<'END'
import importlib.metadata as metadata
import re
import sys
import tomllib

with open(sys.argv[1], "rb") as file:
    needs = tomllib.load(file)["project"]["dependencies"]
lacking = []
for need in needs:
    name, least = re.fullmatch(r"([\w-]+)>=([\d.]+)", need).groups()
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        lacking.append(f"{need} (not there)")
        continue
    numbers = [[int(part) for part in re.findall(r"\d+", version)[:3]] for version in (found, least)]
    if numbers[0] < numbers[1]:
        lacking.append(f"{need} (there: {found})")
if lacking:
    sys.exit("carry wheels of: " + ", ".join(lacking))
END
"$python" "$here/benchmarks/gpu.py" --minutes "$minutes" --data "$data" --out "$out" "$@"
