#!/usr/bin/env -S python3 -B
"""A header has the guard FOLDER_FILE_H, opens with a comment saying what it is for, and compiles alone;
a .c that has a header includes it first (STYLE 3). A public header, flare_NAME.h, is installed as
<flare/NAME.h> and included so everywhere: its guard is FLARE_NAME_H, and it is strict C11 and C++17."""
import concurrent.futures
import os
import re
import subprocess

import source

FLAGS = ["-fsyntax-only", "-Wall", "-Wextra", "-Werror", "-I", source.ROOT,
         "-I", os.path.join(source.BUILD, "generated"), "-"]
COMMAND = ["gcc", "-std=gnu11", "-x", "c"]
PUBLIC_COMMANDS = [["gcc", "-std=c11", "-pedantic-errors", "-x", "c"],
                   ["clang", "-std=c++17", "-pedantic-errors", "-x", "c++"]]
INCLUDE = re.compile(r'^#include ["<]([^">]+)[">]', re.M)


def is_public(path):
    return re.match(r"(broker|client)/flare(_\w+)?\.h$", path) is not None


def guard_of(path):
    parts = path.split("/")
    if is_public(path):
        return re.sub(r"\W", "_", parts[-1]).upper()
    folder = parts[-2] if len(parts) > 1 else "flare"
    return re.sub(r"\W", "_", "%s_%s" % (folder, parts[-1])).upper()


def compile_alone(path):
    # Twice, so that a guard that does not guard shows.
    text = '#include "%s"\n' % path * 2
    for command in [COMMAND] + (PUBLIC_COMMANDS if is_public(path) else []):
        run = subprocess.run(command + FLAGS, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if run.returncode != 0:
            return path, run.returncode, run.stdout.decode()
    return path, 0, ""


headers = source.files(".h")
for path in headers:
    text = source.read(path)
    guard = guard_of(path)
    if not text.startswith("/*"):
        source.found(path, 1, "does not open with a comment that says what it is for")
    if not re.search(r"^#ifndef %s\n#define %s$" % (guard, guard), text, re.M):
        source.found(path, 1, "guard is not %s" % guard)
for path in source.files(".c"):
    own = path[:-2] + ".h"
    # A module of several files has its own header behind one they share.
    allowed = {own, own[:-2] + "_internal.h"}
    if is_public(own):
        allowed.add("flare/" + os.path.basename(own).removeprefix("flare_"))
    first = INCLUDE.search(source.code(source.read(path), keep_strings=True))
    if own in headers and (first is None or first.group(1) not in allowed | set(map(os.path.basename, allowed))):
        source.found(path, 1, 'does not include "%s" first' % own)
with concurrent.futures.ThreadPoolExecutor(max_workers=2) as pool:
    for path, status, output in pool.map(compile_alone, headers):
        if status != 0:
            source.found(path, 1, "does not compile alone:\n" + output)
source.finish("headers")
