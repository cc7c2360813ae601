#!/bin/sh
# Converts MODEL to TensorFlow and verifies the result against GOLDEN, a file of `convert reference` kept in the repository.
#
#     sh parity.sh MODEL GOLDEN [OUT]
#
# Leaves OUT/parity.xml (JUnit) and OUT/parity.md, whatever the verdict. Exit status: 0 equal, 1 different or not converted,
# 2 wrong usage, 3 not checked: a package is missing, say, or GOLDEN is. Fail the job on all but 0; only 1 blames the change.
# Needs the extra `tf`, not torch. CONVERT names the program where `python -m converter` is not it.
set -u
[ $# -ge 2 ] || { echo "usage: parity.sh MODEL GOLDEN [OUT]" >&2; exit 2; }
model=$1 golden=$2 out=${3:-parity-out}
CONVERT=${CONVERT:-python -m converter}

mkdir -p "$out"
rm -f "$out/parity.xml" "$out/parity.md"
$CONVERT pt2tf "$model" "$out/model" --overwrite --quiet || exit $?
$CONVERT verify "$out/model" --reference "$golden" --report "$out/parity.xml" --report "$out/parity.md"
