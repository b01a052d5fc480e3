#!/usr/bin/env bash
# Teacher's vectors and several variants of nano at once, on one GPU:
#
#     pretraining/gpu.sh DATA QWEN OUT TEACHER_SECONDS TRAIN_SECONDS [VARIANT ...]
#
# DATA: the folder that corpus.py prepared. QWEN: the donor's model folder. In OUT: a .tgz a variant (model folder and log.jsonl) and logs.txt.
# Everything else lies in $NANO_WORK. Started again it keeps the vectors that are there, makes the missing ones, and trains anew.
set -u
data=$1 qwen=$2 out=$3 teacher_seconds=$4 train_seconds=$5
shift 5
variants=("$@")
[ ${#variants[@]} -gt 0 ] || variants=(all heavy nopairs larger)
work=${NANO_WORK:-/tmp/nano_work}
here=$(dirname "$0")
export PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 OMP_NUM_THREADS=4
mkdir -p "$work" "$out"
[ -e "$work/data" ] || cp -r "$data" "$work/data"
donor=(--donor "$qwen")
if [ ! -e "$qwen/config.json" ]; then # then what can be learned without it
    echo "no model folder: $qwen; no vectors are made, embeddings start at random"
    donor=() teacher_seconds=0
fi
began=$SECONDS
say() { echo "[$((SECONDS - began)) s] $*"; }

options() { # what makes a variant
    case $1 in
    all) ;;
    noteacher) echo "--shares teacher=0" ;;
    nopairs) echo "--shares pairs=0" ;;
    heavy) echo "--shares loss=0.5 alone=0.3 words=0.3 pairs=0.1 teacher=10" ;;
    larger) echo "--shape 288 6 4 2" ;;
    largerheavy) echo "--shape 288 6 4 2 --shares loss=0.5 alone=0.3 words=0.3 pairs=0.1 teacher=10" ;;
    *) echo "no such variant: $1" >&2 && return 1 ;;
    esac
}

for variant in "${variants[@]}"; do # before hours of a GPU are spent on the default under another name
    options "$variant" >/dev/null || exit 2
done

if [ "$teacher_seconds" != 0 ]; then
    say "teacher, $teacher_seconds s"
    OMP_NUM_THREADS=16 timeout $((teacher_seconds + 60)) python3 "$here/teacher.py" --data "$work/data" --donor "$qwen" \
        --lines 1000000 --seconds "$teacher_seconds" >"$work/teacher.log" 2>&1
    say "teacher ended with $?: $(tail -n 1 "$work/teacher.log")"
fi

pids=()
for variant in "${variants[@]}"; do
    rm -rf "${work:?}/$variant"
    # shellcheck disable=SC2046 # several words are meant
    timeout $((train_seconds + 90)) python3 "$here/pretrain_nano.py" --work "$work/$variant" --data "$work/data" "${donor[@]}" \
        --seconds "$train_seconds" --publish "$work/$variant/$variant" $(options "$variant") >"$work/$variant.log" 2>&1 &
    pids+=($!)
done
for number in "${!variants[@]}"; do
    variant=${variants[$number]}
    wait "${pids[$number]}"
    say "$variant ended with $?: $(tail -n 1 "$work/$variant.log")"
    cp "$work/$variant/log.jsonl" "$work/$variant/$variant/" && tar -C "$work/$variant" -czf "$out/$variant.tgz" "$variant"
done
for log in "$work"/*.log; do echo "== $log" && tail -n 30 "$log"; done >"$out/logs.txt"
nvidia-smi >>"$out/logs.txt" 2>&1
ls -l "$out"
