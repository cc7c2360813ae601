#!/bin/sh
# Converts MODEL to TensorFlow and verifies the result against GOLDEN, a file that `convert reference` wrote.
#
#     sh parity.sh MODEL GOLDEN [OUT]
#
# Writes OUT/parity.xml (JUnit) and OUT/parity.md for every verdict. Exit status: 0 equal, 1 different or not converted,
# 2 wrong usage, 3 not checked (such as a missing package or GOLDEN). Fail the job on all but 0; only 1 blames the change.
# Needs the extra `tf`, not torch. Set CONVERT if the program is not `python -m converter`.
set -u
[ $# -ge 2 ] || { echo "usage: parity.sh MODEL GOLDEN [OUT]" >&2; exit 2; }
model=$1 golden=$2 out=${3:-parity-out}
CONVERT=${CONVERT:-python -m converter}

mkdir -p "$out"
rm -f "$out/parity.xml" "$out/parity.md"
$CONVERT pt2tf "$model" "$out/model" --overwrite --quiet || exit $?
$CONVERT verify "$out/model" --reference "$golden" --report "$out/parity.xml" --report "$out/parity.md"
