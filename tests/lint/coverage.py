#!/usr/bin/env -S python3 -B
"""coverage.py ROOT BUILD: what the tests of the coverage build reached, a line for each folder, and
the sum against tests/lint/coverage-floor. The floor is a percentage of lines that only rises: a run
that reaches a whole percent more says so."""
import collections
import concurrent.futures
import gzip
import json
import os
import subprocess
import sys
import tempfile

import source

PRODUCT = ("broker/", "storage/", "client/", "tools/flare/")


def objects():
    """The .gcno of every object, run or not: what no test links counts as not covered."""
    return sorted(os.path.join(folder, name) for folder, _, names in os.walk(source.BUILD)
                  for name in names if name.endswith(".gcno"))


def lines_of(paths):
    """{source: {line: executions}} of some counter files."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["gcov", "--json-format", "--preserve-paths"] + paths, cwd=folder, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        merged = collections.defaultdict(collections.Counter)
        for name in os.listdir(folder):
            with gzip.open(os.path.join(folder, name)) as file:
                report = json.load(file)
            for entry in report["files"]:
                path = os.path.join(report["current_working_directory"], entry["file"])
                path = os.path.relpath(os.path.normpath(path), source.ROOT)
                if path.startswith(PRODUCT):
                    for line in entry["lines"]:
                        merged[path][line["line_number"]] += line["count"]
        return merged


def percent(lines):
    return 100.0 * sum(count > 0 for count in lines) / len(lines) if lines else 0.0


paths = objects()
if not paths:
    sys.exit("coverage: no objects in %s: build and run the coverage preset first" % source.BUILD)
merged = collections.defaultdict(collections.Counter)
with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
    for part in pool.map(lines_of, [paths[start:start + 20] for start in range(0, len(paths), 20)]):
        for path, lines in part.items():
            merged[path].update(lines)

folders = collections.defaultdict(list)
for path, lines in merged.items():
    folders[os.path.dirname(path)].extend(lines.values())
for folder in sorted(folders):
    print("  %5.1f %%  of %5d lines  %s" % (percent(folders[folder]), len(folders[folder]), folder))
total = percent([count for lines in folders.values() for count in lines])
floor = float(source.read("tests/lint/coverage-floor"))
print("coverage: %.1f %% of %d lines, floor %g %%" % (total, sum(map(len, folders.values())), floor))
if total < floor:
    sys.exit("coverage: below the floor of tests/lint/coverage-floor; cover what the change adds")
if total >= floor + 1:
    print("coverage: raise tests/lint/coverage-floor to %d" % int(total))
