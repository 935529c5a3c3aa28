#!/usr/bin/env -S python3 -B
"""count-tests.py JUNIT_XML: how many tests a CTest run held, as "PASSED FAILED".

A cmocka or Python unittest program counts as its tests; any other program (simulation, replay, lint) counts
as one. A program that failed without saying which test (crash, time-out, sanitizer) is one failed test."""
import re
import sys
import xml.etree.ElementTree

PASSED = re.compile(r"^\[  PASSED  \] (\d+) test", re.M)
FAILED = re.compile(r"^\[  FAILED  \] (\d+) test", re.M)
RAN = re.compile(r"^Ran (\d+) tests? in ", re.M)
FAILURES = re.compile(r"^FAILED \((?:failures=(\d+))?(?:, )?(?:errors=(\d+))?", re.M)


def count(case):
    output = case.findtext("system-out") or ""
    failed = case.get("status") != "run"
    passed_tests = sum(int(number) for number in PASSED.findall(output))
    failed_tests = sum(int(number) for number in FAILED.findall(output))
    ran = sum(int(number) for number in RAN.findall(output))
    if ran:
        failed_tests = sum(int(number or 0) for pair in FAILURES.findall(output) for number in pair)
        passed_tests = max(ran - failed_tests, 0)
    if failed:
        return passed_tests, max(failed_tests, 1)
    return max(passed_tests, 1), failed_tests


counts = [count(case) for case in xml.etree.ElementTree.parse(sys.argv[1]).getroot().iter("testcase")]
print(sum(passed for passed, _ in counts), sum(failed for _, failed in counts))
