#!/usr/bin/env bash
# The drill for a machine with a GPU: checks, timings and profiles of the generated kernels, in one command of 9 minutes at most.
#
#     bash benchmarks/gpu.sh OUT                        with a GPU
#     bash benchmarks/gpu.sh OUT --device emulated      the rehearsal without one: tiny shapes, and no time is a speed
#
# OUT gets results.jsonl (every record, as soon as it is there), log.txt and kernels.png. Nothing is downloaded.
#
#   --parts "A B"     only these, of: environment tests check kernels peers crossover registers profile picture;
#                     kernels and crossover time what check has found right
#   --cells "A B"     only these cells
#   --limit PART=SECONDS   another limit than the one below
#   PY                the interpreter; WHEELS, a directory of wheels to install for this run alone (PyCUDA and what it needs,
#                     accelerated-scan, fla-core …)
#
# A part that fails or goes over its limit does not stop the next. Exit status: 0 when every part ended well, else 1.
set -uo pipefail

declare -A limits=([environment]=40 [tests]=150 [check]=60 [kernels]=160 [peers]=90 [crossover]=50 [registers]=40
                   [profile]=60 [picture]=30)
parts="environment tests check kernels peers crossover registers profile picture"
out="" device=cuda cells="" budget=530
declare -a told=()

while (($#)); do
    case "$1" in
        --device) device=$2; shift 2 ;;
        --parts) parts=$2; shift 2 ;;
        --cells) cells=$2; shift 2 ;;
        --limit) limits[${2%%=*}]=${2#*=}; shift 2 ;;
        --fail | --hang) told+=("$1" "$2"); shift 2 ;;
        -*) echo "gpu.sh: no option $1" >&2; exit 2 ;;
        *) out=$1; shift ;;
    esac
done
[[ -n $out ]] || { echo "usage: bash benchmarks/gpu.sh OUT [--device cuda|emulated]" >&2; exit 2; }
[[ $device == cuda || $device == emulated ]] || { echo "gpu.sh: --device is cuda or emulated, not $device" >&2; exit 2; }

say() {
    echo "$1" | tee -a "$out/log.txt"
}

absolute() {  # not through links: a virtual environment's python is one
    echo "$(cd "$(dirname "$1")" && pwd)/$(basename "$1")"
}

mkdir -p "$out"
out=$(absolute "$out") wheels=${WHEELS:+$(absolute "$WHEELS")} python=${PY:-python3}
[[ $python == */* ]] && python=$(absolute "$python")
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
unset LRDSL_BACKEND
if [[ $device == emulated ]]; then  # no device is waiting, and a CPU takes its time
    export LRDSL_BACKEND=emulated
    budget=1800 limits[tests]=600
fi

if [[ -n $wheels ]]; then
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    for wheel in "$wheels"/*.whl; do  # one at a time: a wheel for another Python must not keep the others out
        "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" "$wheel" >>"$out/log.txt" 2>&1 ||
            say "not installed: $wheel"
    done
    export PYTHONPATH="$PYTHONPATH:$site"
fi

well=0
for part in $parts; do
    left=$((budget - SECONDS)) limit=${limits[$part]:?} began=$SECONDS
    ((limit > left)) && limit=$left
    if ((left < 5)); then
        outcome="not begun: the time is up"
    else
        say "== $part, $limit s at most"
        # Into the log, not through a pipe, which a process that outlives its part would hold open.
        timeout --kill-after=3 "$limit" "$python" -m benchmarks.gpu_drill "$part" "$out" --device "$device" \
            ${cells:+--cells $cells} "${told[@]}" >"$out/part.txt" 2>&1
        status=$?
        case $status in
            0) outcome=passed ;;
            124 | 137) outcome="over its limit of $limit s" ;;
            *) outcome="failed with status $status" ;;
        esac
        cat "$out/part.txt" >>"$out/log.txt"
        tail -n 15 "$out/part.txt"
        rm -f "$out/part.txt"
    fi
    [[ $outcome == passed ]] || well=1
    say "== $part: $outcome, $((SECONDS - began)) s"
    "$python" -m benchmarks.gpu_records "$out" "$device" "$part" "$outcome" $((SECONDS - began))
done
exit $well
