#!/usr/bin/env bash
# Regenerates the worlds from their fixed seeds and trains the first weights: the frame teacher,
# micro, its control without memory, and micro distilled from the teacher alone; micro and its control
# go on in wider worlds, in a second run each. Of the worlds, those in clips_unseen have no part in
# any of it; bench_first_weights scores on them.
#
#   scripts/train_first_weights.sh [FOLDER]     default: output/first_weights
#
# Run it again after a stop or a kill: finished parts are skipped, the others go on.
# PYTHON=... chooses the interpreter, PROCESSES=... how many worlds are simulated at a time,
# SET="--set steps=4" changes settings of every run, to see that all of it works here.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${1:-output/first_weights}
python=${PYTHON:-python3}
read -ra overrides <<< "${SET:-}"
dae_ros() { "$python" -m dae_ros.cli "$@"; }

processes=${PROCESSES:-2}
dae_ros clips config/train/clips_first_weights.yaml --out "$folder/clips" --processes "$processes"
for worlds in wider unseen; do
    dae_ros clips "config/train/clips_${worlds}_worlds.yaml" --out "$folder/clips_$worlds" \
        --processes "$processes"
done
dae_ros train first_weights_frames --out "$folder/frames" --set "clips=$folder/clips" \
    "${overrides[@]}"
teacher="$folder/frames/last.safetensors"
for part in micro memoryless; do
    dae_ros train "first_weights_$part" --out "$folder/$part" --set "clips=$folder/clips" \
        --set "encoder_weights=$teacher" "${overrides[@]}"
    dae_ros train "first_weights_${part}_wider" --out "$folder/${part}_wider" \
        --set "clips=$folder/clips_wider" --set "weights=$folder/$part/last.safetensors" \
        "${overrides[@]}"
done
dae_ros distill first_weights_distilled --out "$folder/distilled" --set "clips=$folder/clips" \
    --set "encoder_weights=$teacher" --set "teachers=$teacher" "${overrides[@]}"
