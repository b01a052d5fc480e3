#!/bin/sh
# A launch script in the manner of older ones: bash finetune.sh [-m MODEL] [-d DATA] [any other option of fenlei train]
MODEL=nano
DATA=data/news

usage() {
    echo "Usage: bash finetune.sh [-m MODEL_PATH] [-d DATA_PATH] [OPTION OF FENLEI TRAIN]..."
}

while [ $# -gt 0 ]; do
    case $1 in
        -m | --model) MODEL=$2; shift 2 ;;
        -d | --data) DATA=$2; shift 2 ;;
        -h | --help) usage; exit 0 ;;
        *) break ;;
    esac
done

# Add --use_lora, or --tuning lora, for adapters in place of full tuning.
exec fenlei train \
  --model_name_or_path "$MODEL" \
  --is_training True \
  --data_path "$DATA" \
  --output_dir "runs/$(basename "$DATA")" \
  --num_train_epochs 3 \
  --per_device_train_batch_size 2 \
  --gradient_accumulation_steps 2 \
  --learning_rate 3e-4 \
  --weight_decay 0.1 \
  --warmup_ratio 0.01 \
  --model_max_length 512 \
  --gradient_checkpointing \
  "$@"
