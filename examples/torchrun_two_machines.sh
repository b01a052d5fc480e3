#!/bin/sh
# The same command on both machines, with MACHINE=0 on the first and MACHINE=1 on the other. Data, model and --out lie on a disk that both see.
exec torchrun --nnodes 2 --node-rank "$MACHINE" --nproc-per-node 8 --master-addr first-machine --master-port 29500 \
    -m fenlei train news.jsonl --model Qwen/Qwen3-0.6B --out /shared/runs/news "$@"
