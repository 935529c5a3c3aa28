#!/usr/bin/env -S python3 -B
"""The tree holds sources only: nothing generated, nothing large, and at the top only what DESIGN 8 names."""
import os
import re
import stat

import source

SIZE_MAX = 512 * 1024
TOP = re.compile(r"(broker|storage|client|tools|tests|\.ci|\.github)/|"
                 r"(CMakeLists\.txt|CMakePresets\.json|Dockerfile|LICENSE|\.[a-z-]+|"
                 r"(SPEC|README|CONTRIBUTING|CHANGELOG|SECURITY)\.md)$")
GENERATED = re.compile(r"\.(o|a|so|gcda|gcno|gcov|info|profraw|profdata|pyc|mdb|mdb-lock|orig|rej|core)$|"
                       r"(^|/)(core\.\d+|crash-[0-9a-f]{40}|leak-[0-9a-f]{40}|oom-[0-9a-f]{40}|__pycache__)(/|$)|"
                       r"^compile_commands\.json$|^build/")

for path in source.files():
    full = os.path.join(source.ROOT, path)
    status = os.lstat(full)
    if not TOP.match(path):
        source.found(path, 0, "the top level holds only what DESIGN 8 names")
    if GENERATED.search(path):
        source.found(path, 0, "is generated and must not be committed")
    if status.st_size > SIZE_MAX:
        source.found(path, 0, "has %d bytes, the limit is %d" % (status.st_size, SIZE_MAX))
    if stat.S_ISREG(status.st_mode):
        with open(full, "rb") as file:
            script = file.read(2) == b"#!"
        if script != bool(status.st_mode & 0o100):
            source.found(path, 0, "a script is executable and starts with #!, nothing else is and does")
source.finish("tree")
