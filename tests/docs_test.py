#!/usr/bin/env python3
"""The documentation against the tree: rooms have READMEs, relative links lead somewhere, claims parse, no private paths.

Reads the source tree itself, found through this file's links, and not a copy: every tracked file counts.
"""
import collections
import importlib.machinery
import importlib.util
import os
import re
import subprocess
import sys
import unittest

sys.dont_write_bytecode = True  # tools/claims is loaded as a module

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
ROOM_ROW = re.compile(r"^\| \[`([a-z_/]+)/`\]\(([^)]+)\) \|", re.M)
# Two that no file may mention: folders of whoever builds this. In pieces, so that this file passes.
FORBIDDEN = [re.compile(rb"(?<![A-Za-z0-9_.$}-])/wo" + rb"rk/"), re.compile(rb"(?<![A-Za-z0-9_])\.lib" + rb"rary\b")]


def tracked():
    """Paths below ROOT, without git where there is none (an unpacked archive)."""
    git = subprocess.run(["git", "-c", "safe.directory=*", "-C", ROOT, "ls-files", "-z"], stdout=subprocess.PIPE,
                         stderr=subprocess.DEVNULL, check=False) if os.path.exists(os.path.join(ROOT, ".git")) else None
    if git and git.returncode == 0:
        found = [os.fsdecode(name) for name in git.stdout.split(b"\0") if name]
    else:
        found = []
        for folder, folders, files in os.walk(ROOT):
            folders[:] = [name for name in folders if name != ".git" and not name.startswith("bazel-")]
            found += [os.path.relpath(os.path.join(folder, name), ROOT) for name in files]
    return sorted(name for name in found if os.path.isfile(os.path.join(ROOT, name)))


def text(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


def without_code(markdown):
    markdown = re.sub(r"^```.*?^```", "", markdown, flags=re.M | re.S)
    markdown = re.sub(r"^    .*$", "", markdown, flags=re.M)
    return re.sub(r"`[^`\n]*`", "`code`", markdown)


def anchors(markdown):
    """The names that headings get: lower case, punctuation dropped, spaces to dashes."""
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
            for heading in re.findall(r"^#+ (.*)$", markdown, re.M)}


def claims_tool():
    loader = importlib.machinery.SourceFileLoader("claims", os.path.join(ROOT, "tools", "claims"))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("claims", loader))
    loader.exec_module(module)
    return module


class DocsTest(unittest.TestCase):
    files = tracked()

    def test_every_room_that_the_readme_names_is_there_and_has_a_readme(self):
        rooms = ROOM_ROW.findall(text("README.md"))
        self.assertGreater(len(rooms), 10, "the README's table of rooms was not found")
        for room, link in rooms:
            self.assertEqual(link, f"{room}/README.md")
            self.assertTrue(os.path.isfile(os.path.join(ROOT, link)), link)

    def test_every_room_is_named_by_the_readme(self):
        named = {room.split("/")[0] for room, _ in ROOM_ROW.findall(text("README.md"))}
        there = {name.split("/")[0] for name in self.files if "/" in name and not name.startswith(".")}
        self.assertEqual(there - named, set())

    def test_every_folder_of_a_room_that_has_a_build_file_has_a_readme(self):
        # Folders of data, and stand-ins for Bazel's own repositories, are described by the room around them.
        missing = [os.path.dirname(name) for name in self.files
                   if os.path.basename(name) == "BUILD.bazel" and "/" in name and not name.startswith("third_party/")
                   and not os.path.isfile(os.path.join(ROOT, os.path.dirname(name), "README.md"))]
        self.assertEqual(missing, [])

    def test_relative_links_lead_somewhere(self):
        dead = []
        for name in self.files:
            if not name.endswith(".md"):
                continue
            for target in re.findall(r"\]\(([^)\s]+)\)", without_code(text(name))):
                if re.match(r"[a-z]+:", target):
                    continue
                path, _, fragment = target.partition("#")
                full = os.path.normpath(os.path.join(ROOT, os.path.dirname(name), path)) if path else os.path.join(ROOT, name)
                if not full.startswith(ROOT + os.sep) or not os.path.exists(full):
                    dead.append(f"{name}: {target}")
                elif fragment and full.endswith(".md") and fragment not in anchors(text(os.path.relpath(full, ROOT))):
                    dead.append(f"{name}: {target}: no such heading")
        self.assertEqual(dead, [])

    def test_every_claim_parses_and_its_id_is_its_own(self):
        claims = claims_tool()
        rows = list(claims.rows())
        lines = [line for line in text("docs/claims.md").splitlines() if line.startswith("|")]
        # What the tool does not take for a row must be the table's head and its rule.
        self.assertEqual(len(rows), len(lines) - 2, "a row of docs/claims.md does not parse")
        self.assertGreater(len(rows), 0)
        repeated = [name for name, count in collections.Counter(row[0] for row in rows).items() if count > 1]
        self.assertEqual(repeated, [])
        for name, claim, command, condition, last in rows:
            self.assertTrue(claim and command and last, name)
            _, figure = claims.judge(condition, 0, "")
            self.assertNotIn("cannot read", figure, name)

    def test_programs_that_claims_run_are_there(self):
        for name, _, command, _, _ in claims_tool().rows():
            for program in re.findall(r"(?:^|[;|&] ?)((?:tools|tests|bench|lab)/\S+)", command):
                self.assertTrue(os.access(os.path.join(ROOT, program), os.X_OK), f"{name}: {program}")

    def test_no_file_mentions_folders_of_whoever_builds_this(self):
        found = []
        for name in self.files:
            with open(os.path.join(ROOT, name), "rb") as file:
                data = file.read()
            if b"\0" in data[:8192]:
                continue
            for number, line in enumerate(data.split(b"\n"), 1):
                if any(word.search(line) for word in FORBIDDEN):
                    found.append(f"{name}:{number}")
        self.assertEqual(found, [])


if __name__ == "__main__":
    sys.exit(unittest.main(verbosity=2))
