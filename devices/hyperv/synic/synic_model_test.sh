#!/bin/bash
# Lets spin check synic.pml: once as it is, which must hold, and once with each known bug, which must be found.
set -euo pipefail

readonly kModel=$PWD/$1
for tool in spin gcc; do
  command -v "$tool" >/dev/null || {
    echo "no $tool: run tools/setup deps first" >&2
    exit 1
  }
done
cd "${TEST_TMPDIR:?}"
failures=0

# check NAME PAN_FLAGS PAN_OPTIONS SPIN_FLAGS...: leaves pan's report in NAME/report. pan itself ends with 0 either way.
check() {
  local name=$1 flags=$2 options=$3
  shift 3
  mkdir "$name"
  # shellcheck disable=SC2086  # options are words
  (cd "$name" && cp "$kModel" . && spin "$@" -a "${kModel##*/}" >spin.log &&
    gcc -O2 -w -DCOLLAPSE -DMEMLIM=2048 $flags -o pan pan.c && ./pan -m100000 $options >report 2>&1) ||
    { cat "$name"/*.log "$name/report" 2>/dev/null; return 1; }
}

# Complete: a search that ran out of depth or memory proves nothing.
expect_holds() {
  local report=$1/report
  if grep -q 'errors: 0' "$report" && ! grep -Eq 'not completed|max search depth too small|out of memory' "$report"; then
    echo "holds: $1: $(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1 states/p' "$report")"
  else
    echo "FAILED: $1 should hold"
    grep -v '^Depth=' "$report" | head -n 20
    (cd "$1" && ((failures++ < 1)) && spin -t -p "${kModel##*/}" 2>/dev/null | tail -n 60) || true
    failures=$((failures + 1))
  fi
}

expect_found() {
  if grep -Eq "^pan:1: .*$2" "$1/report"; then
    echo "found: $1: $(sed -n 's/^pan:1: //p' "$1/report")"
  else
    echo "FAILED: $1: spin does not find this bug by: $2"
    grep -v '^Depth=' "$1/report" | head -n 20
    failures=$((failures + 1))
  fi
}

check two_kicked_one_delivered -DSAFETY "" -DKICKED=2 -DDELIVERED=1
expect_holds two_kicked_one_delivered
check one_kicked_two_delivered -DSAFETY "" -DKICKED=1 -DDELIVERED=2
expect_holds one_kicked_two_delivered
check progress "-DNP -DNFAIR=3" "-l -f" -DKICKED=1 -DDELIVERED=1
expect_holds progress

# What each bug breaks: a message lost or linked twice, one that nobody is woken for, two writers, too many kicks.
readonly kLost='arrived\[0\]=='
while read -r bug finding; do
  check "$bug" -DSAFETY "" -DKICKED=2 -DDELIVERED=2 "-DMUTATE_$bug"
  expect_found "$bug" "$finding"
done <<END
PUBLISH_WITHOUT_CAS linked\[m\]|$kLost
RING_WITHOUT_CAS $kLost|granted
ARM_WITHOUT_CAS $kLost|granted
NO_SECOND_LOOK_AT_TYPE $kLost
TYPE_BEFORE_FLAG $kLost
NO_CLAIM writers
NO_MARK $kLost
NO_LOOK_AGAIN $kLost
END
exit $((failures > 0))
