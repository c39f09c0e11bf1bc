#!/bin/bash
# For Bazel: run_test.py on the source tree, with the caller's own cache and not one below the test's directory.
set -eu
if [[ -n ${TEST_TMPDIR:-} && ${HOME:-} == "$TEST_TMPDIR" ]]; then unset HOME; fi
exec "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/run_test.py" "$@"
