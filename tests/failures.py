#!/usr/bin/env python3
"""The tests that failed, of a JUnit file that ctest wrote, each with the last lines of what it printed.

    tests/failures.py build/release-tests.xml
"""

import argparse
import xml.etree.ElementTree as ElementTree

LINES = 20


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("junit")
    for case in ElementTree.parse(parser.parse_args().junit).iter("testcase"):
        if case.get("status") == "fail":
            print(f"FAILED: {case.get('name')}")
            for line in (case.findtext("system-out") or "").splitlines()[-LINES:]:
                print(f"  {line[:400]}")


if __name__ == "__main__":
    main()
