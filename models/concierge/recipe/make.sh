#!/usr/bin/env bash
# Makes concierge.gguf from nothing: tokenizer, conversations, training, export.
#
#   models/concierge/recipe/make.sh WORK_DIR [MINUTES]
#
# About 2 hours on two cores. The conversations are the same on every machine;
# the weights depend on how many steps the machine makes in the time (use
# train.py's --steps for the same number everywhere).
set -euo pipefail
work=$(mkdir -p "$1" && cd "$1" && pwd)
minutes=${2:-110}
cd "$(dirname "$0")"
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet -r requirements.txt
python="$work/venv/bin/python"
"$python" corpus.py tokenizer "$work"
for seed in $(seq 0 31); do
  "$python" corpus.py shard "$work" "$seed" 4000
done
"$python" train.py "$work" --shards 0-31 --minutes "$minutes"
"$python" export.py "$work" "$work/concierge.gguf"
echo "Compare with models/concierge/evaluate $work/concierge.gguf, then copy it to models/concierge/concierge.gguf and run there: sha256sum concierge.gguf > concierge.gguf.sha256"
