#!/usr/bin/env bash
# What README.md here wants of a GPU: one with 40 GB at least, 64 GB of memory and 30 GB of
# disk under TMPDIR. Takes about half an hour, most of it to make up vectors.
set -euo pipefail
cd "$(dirname "$0")/.."
passages=8841823
python benchmarks/search.py --passages $passages --dimension 768
python benchmarks/search.py --passages $passages --dimension 768 --queries 256
python benchmarks/star_step.py --encoder roberta-base --queries 256 --bf16
python benchmarks/star_step.py --encoder roberta-base --queries 256 --bf16 --compile
python benchmarks/encode.py --encoder roberta-base --passages 200000 --bf16
python benchmarks/adore.py --encoder roberta-base --passages $passages --queries 256 \
    --steps 200 --bf16
