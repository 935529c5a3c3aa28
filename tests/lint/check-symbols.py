#!/usr/bin/env -S python3 -B
"""The core is pure: its archive needs nothing outside itself but tests/lint/core-symbols (STYLE 7).
And a non-static name starts with its module's: the file, its folder, or a type that the folder's
headers declare (STYLE 3); libraries for programs show only flare_*. All is read from the release build."""
import fnmatch
import os
import re
import subprocess

import source

# Archive -> its folder. The node's is the only one whose sources lie in broker/ itself.
ARCHIVES = {
    "libflare_base.a": "broker/base", "libflare_wire.a": "broker/wire", "libflare_config.a": "broker/config",
    "libflare_metrics.a": "broker/metrics", "libflare_storage.a": "storage", "libflare_core.a": "broker/core",
    "libflare_volume.a": "broker/volume", "libflare_net.a": "broker/net", "libflare_http.a": "broker/http", "libflare_session.a": "broker/session", "libflare_node.a": "broker",
    "libflare_client.a": "client",
}
CORE = "libflare_core.a"
TAG = re.compile(r"^(?:struct|enum|union) (\w+)", re.M)
EXTERNAL_DATA = "BDRGSCV"


def symbols(archive):
    """(object, kind, name) of each global symbol."""
    run = subprocess.run(["nm", "-A", "-g", os.path.join(source.BUILD, archive)], check=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in run.stdout.decode().splitlines():
        match = re.match(r".*:([^:]+\.o):\s*[0-9a-f]*\s+(\w) (\S+)$", line)
        if match:
            yield match.groups()


def check_purity(found):
    allow, deny = [], []
    for line in source.read("tests/lint/core-symbols").splitlines():
        name = line.split("#")[0].strip()
        if name:
            (deny if name.startswith("!") else allow).append(name.lstrip("!"))
    own = {name for _, kind, name in found if kind != "U"}
    for member, kind, name in found:
        matches = any(fnmatch.fnmatchcase(name, pattern) for pattern in allow)
        denied = any(fnmatch.fnmatchcase(name, pattern) for pattern in deny)
        if kind == "U" and name not in own and (not matches or denied):
            source.found("broker/core/" + member[:-2], 0, "the core is pure and may not use %s" % name)


def check_names(folder, found):
    headers = [path for path in source.files(".h") if os.path.dirname(path) == folder]
    shared = {os.path.basename(folder)} | {os.path.basename(path)[:-2] for path in headers}
    for path in headers:
        shared |= set(TAG.findall(source.code(source.read(path))))
    for member, kind, name in found:
        if kind not in "T" + EXTERNAL_DATA:
            continue
        stem = member.split(".")[0]
        if not any(name == prefix or name.startswith(prefix + "_") for prefix in shared | {stem, "flare"}):
            source.found("%s/%s.c" % (folder, stem), 0, "%s is not static and does not start with its module's name" % name)


def is_built(archive, folder):
    """Without sources there is no archive; with sources it must have been built."""
    has_sources = any(os.path.dirname(path) == folder and not path.endswith("/main.c") for path in source.files(".c"))
    exists = os.path.exists(os.path.join(source.BUILD, archive))
    if has_sources and not exists:
        source.found(archive, 0, "has not been built: cmake --build %s" % source.BUILD)
    return has_sources and exists


def check_exports():
    """A library for programs shows its public names and nothing else."""
    for library in sorted(os.listdir(source.BUILD)):
        if not re.match(r"libflare(-\w+)?\.(a|so)$", library):
            continue
        dynamic = ["-D"] if library.endswith(".so") else []
        run = subprocess.run(["nm", "-g", "--defined-only"] + dynamic + [os.path.join(source.BUILD, library)],
                             check=True, stdout=subprocess.PIPE)
        names = re.findall(r"^[0-9a-f]+ \w (\S+)$", run.stdout.decode(), re.M)
        for name in [name for name in names if not name.startswith("flare_")] + ([] if names else ["nothing"]):
            source.found(library, 0, "shows %s" % name)


check_exports()
for archive, folder in ARCHIVES.items():
    if is_built(archive, folder):
        found = list(symbols(archive))
        check_names(folder, found)
        if archive == CORE:
            check_purity(found)
source.finish("symbols")
