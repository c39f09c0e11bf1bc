#!/usr/bin/env python3
"""The library in a program of its own: examples/embed boots a guest, stops it, and hears of every end.

Needs /dev/kvm and VMM_BINARY; the embedding program is looked for beside it.
"""
import os
import shutil
import subprocess
import tempfile
import time
import unittest

import harness

EMBED = os.path.join(os.path.dirname(harness.VMM), "..", "examples", "embed", "embed")
MARKER = "vmm-guest: user space is up"


def run(*arguments):
    return subprocess.run([EMBED, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                          timeout=harness.LIMIT)


class EmbedTest(unittest.TestCase):
    def test_stop_after_the_marker_ends_the_machine_and_its_process(self):
        with subprocess.Popen([EMBED, harness.GUEST, MARKER], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, errors="replace") as process:
            deadline = time.monotonic() + harness.LIMIT
            children = []
            while not children and process.poll() is None and time.monotonic() < deadline:
                children = harness.children_of(process.pid)
                time.sleep(0.01)
            out, errors = process.communicate(timeout=harness.LIMIT)
        self.assertEqual(process.returncode, 42, errors)
        self.assertIn(MARKER, out)
        self.assertIn("embed: on_end: stopped on request\n", errors)
        self.assertIn("embed: ended: stopped on request, after ", errors)
        self.assertEqual(len(children), 1)
        self.assertFalse(harness.alive(children[0]))

    def test_a_folder_without_a_kernel_is_refused_before_anything_starts(self):
        with tempfile.TemporaryDirectory() as folder:
            result = run(folder)
        self.assertEqual(result.returncode, 4, result.stderr)
        self.assertIn(f'embed: boot.kernel: cannot open "{folder}/vmlinux": No such file or directory', result.stderr)
        self.assertNotIn("on_end", result.stderr)

    def test_a_kernel_that_is_none_is_an_image_error_of_create(self):
        with tempfile.TemporaryDirectory() as folder:
            with open(os.path.join(folder, "vmlinux"), "wb") as kernel:
                kernel.write(b"no kernel at all" * 256)
            shutil.copy(os.path.join(harness.GUEST, "initramfs.cpio"), folder)
            result = run(folder)
        self.assertEqual(result.returncode, 6, result.stderr)
        self.assertIn("neither an ELF file nor a bzImage", result.stderr)
        self.assertNotIn("on_end", result.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
