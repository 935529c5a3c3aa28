#!/usr/bin/env -S python3 -B
"""A check that finds nothing proves nothing: plants one breach of each rule in a small tree and expects
the check to name it, and expects silence for the same tree without it."""
import os
import subprocess
import sys
import tempfile

LINT = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(LINT, "../.."))

HEADER = "/* For this test. */\n#ifndef BASE_THING_H\n#define BASE_THING_H\n\nint thing_get(void);\n\n#endif\n"
SOURCE = '#include "broker/base/thing.h"\n\nint thing_get(void)\n{\n    return 1;\n}\n'
CLEAN = {
    ".clang-format": open(os.path.join(ROOT, ".clang-format"), encoding="utf-8").read(),
    "broker/base/thing.h": HEADER,
    "broker/base/thing.c": SOURCE,
    "broker/core/pure.c": "#include <string.h>\n\nint pure_order(const void *a, const void *b);\n\n"
                          "int pure_order(const void *a, const void *b)\n{\n    return memcmp(a, b, 8);\n}\n",
    "tests/lint/core-symbols": "memcmp\n",
    "README.md": "# Thing\n\nSee [here](#thing) and `broker/base/thing.c`.\n",
}


def function(lines, parameters):
    body = "    (void)0;\n" * (lines - 3)
    return '#include "broker/base/thing.h"\n\nint thing_get(%s)\n{\n%s}\n' % (parameters, body)


# (check, what is broken, changed files, expected in the output)
CASES = [
    ("layers", "base sees core", {"broker/core/core.h": HEADER, "broker/base/thing.c": '#include "broker/core/core.h"\n'}, "may not see"),
    ("layers", "core sees lmdb.h of storage", {"storage/lmdb.h": HEADER, "broker/core/pure.c": '#include "storage/lmdb.h"\n'}, "may not see"),
    ("layers", "neighbours of one layer", {"broker/wire/a.h": HEADER, "broker/config/b.c": '#include "broker/wire/a.h"\n'}, "may not see"),
    ("layers", "client sees core", {"broker/core/core.h": HEADER, "client/a.c": '#include "broker/core/core.h"\n'}, "may see only"),
    ("layers", "core includes time.h", {"broker/core/pure.c": "#include <time.h>\n"}, "is pure"),
    ("layers", "storage includes uv.h", {"storage/a.c": "#include <uv.h>\n"}, "may not include <uv.h>"),
    ("layers", "missing file", {"broker/base/thing.c": '#include "broker/base/gone.h"\n'}, "no file"),
    ("shape", "71 lines", {"broker/base/thing.c": function(71, "void")}, "has 71 lines"),
    ("shape", "7 parameters", {"broker/base/thing.c": function(5, "int a, int b, int c, int d, int e, int f, int (*g)(int, int)")}, "has 7 parameters"),
    ("shape", "101 columns", {"broker/base/thing.c": SOURCE + "/* " + "x" * 95 + " */\n"}, "101 columns"),
    ("shape", "TODO without a number", {"broker/base/thing.c": SOURCE + "/* TO" "DO: later */\n"}, "without an issue number"),
    ("shape", "silenced everything", {"broker/base/thing.c": SOURCE + "int a; /* NO" "LINT */\n"}, "without naming"),
    ("shape", "silenced without a reason", {"broker/base/thing.c": SOURCE + "int a; /* NO" "LINT(misc-a) */\n"}, "without naming"),
    ("shape", "tab", {"broker/base/thing.c": SOURCE + "\tint a;\n"}, "tab"),
    ("headers", "wrong guard", {"broker/base/thing.h": HEADER.replace("BASE_", "")}, "guard is not BASE_THING_H"),
    ("headers", "type not included", {"broker/base/thing.h": HEADER.replace("int thing", "uint32_t thing")}, "does not compile alone"),
    ("headers", "no comment", {"broker/base/thing.h": HEADER.split("\n", 1)[1]}, "what it is for"),
    ("headers", "own header not first", {"broker/base/thing.c": "#include <stdint.h>\n" + SOURCE}, "first"),
    ("headers", "guard of a public header", {"client/flare_thing.h": HEADER}, "guard is not FLARE_THING_H"),
    ("headers", "public header that is not C++", {"client/flare_thing.h": HEADER.replace("BASE", "FLARE").replace("thing_get", "new")}, "does not compile alone"),
    ("headers", "public header that is not C11", {"client/flare_thing.h": HEADER.replace("BASE", "FLARE").replace("int thing_get(void);", "struct thing {};")}, "does not compile alone"),
    ("format", "brace on the wrong line", {"broker/base/thing.c": SOURCE.replace(")\n{", ") {")}, "not formatted"),
    ("tree", "object file", {"broker/base/thing.o": ""}, "generated"),
    ("tree", "stranger at the top", {"notes.txt": ""}, "top level"),
    ("tree", "large file", {"tests/big.json": "x" * 600000}, "limit"),
    ("docs", "broken link", {"README.md": "# Thing\n[gone](gone.md)\n"}, "does not exist"),
    ("docs", "broken anchor", {"README.md": "# Thing\n[gone](#gone)\n"}, "no such heading"),
    ("docs", "named file missing", {"README.md": "# Thing\nRun `./tools/gone`.\n"}, "names tools/gone"),
    ("symbols", "core reads the clock", {"broker/core/pure.c": "#include <time.h>\n\nlong pure_now(void);\n\nlong pure_now(void)\n{\n    return time(0);\n}\n"}, "may not use time"),
    ("symbols", "library that shows more", {"client/thing.c": SOURCE}, "libflare-thing.a: shows thing_get"),
    ("symbols", "name without its module", {"broker/base/thing.c": SOURCE + "int get_thing(void);\nint get_thing(void)\n{\n    return 1;\n}\n"}, "get_thing is not static"),
]


def archive(folder, name, root, build):
    """The archive that the build makes of a folder."""
    objects = []
    for file in sorted(os.listdir(os.path.join(root, folder))):
        if file.endswith(".c"):
            objects.append(os.path.join(build, file + ".o"))
            subprocess.run(["gcc", "-I", root, "-c", os.path.join(root, folder, file), "-o", objects[-1]], check=True)
    subprocess.run(["ar", "rcs", os.path.join(build, name)] + objects, check=True)


def run(check, tree):
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as build:
        for path, text in tree.items():
            os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
            with open(os.path.join(root, path), "w", encoding="utf-8") as file:
                file.write(text)
        subprocess.run(["git", "init", "-q", root], check=True)
        if check == "symbols":
            archive("broker/base", "libflare_base.a", root, build)
            archive("broker/core", "libflare_core.a", root, build)
            if os.path.isdir(os.path.join(root, "client")):
                archive("client", "libflare-thing.a", root, build)
                archive("client", "libflare_client.a", root, build)
        done = subprocess.run([os.path.join(LINT, "check-%s.py" % check), root, build],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return done.returncode, done.stdout.decode()


failures = 0
for check in sorted({case[0] for case in CASES}):
    status, output = run(check, CLEAN)
    if status != 0:
        failures += 1
        print("FAILED: %s finds something in a clean tree:\n%s" % (check, output))
for check, what, change, expected in CASES:
    status, output = run(check, {**CLEAN, **change})
    if status != 1 or expected not in output:
        failures += 1
        print("FAILED: %s misses \"%s\"; exit %d:\n%s" % (check, what, status, output))
print("%d planted breaches, %d failures" % (len(CASES), failures))
sys.exit(1 if failures else 0)
