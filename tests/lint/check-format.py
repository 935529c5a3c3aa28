#!/usr/bin/env -S python3 -B
"""clang-format would change nothing. `tools/lint --fix` lets it change what it would."""
import subprocess

import source

paths = source.files(".c", ".h")
for start in range(0, len(paths), 50):
    run = subprocess.run(["clang-format", "--dry-run", "--ferror-limit=1", "--Werror"] + paths[start:start + 50],
                         cwd=source.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    for line in run.stdout.decode().splitlines():
        if "error:" in line:
            path, number = line.split(":")[:2]
            source.found(path, int(number), "not formatted; tools/lint --fix %s" % path)
    if run.returncode != 0 and "error:" not in run.stdout.decode():
        source.found("clang-format", 0, run.stdout.decode())
source.finish("format")
