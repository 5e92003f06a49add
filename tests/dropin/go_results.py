"""Compares the output of `go test -json` with the list of tests that are expected to fail or to be skipped.

go_results.py SUITE RESULTS EXPECTED: exit code 1, and what differs, unless every test of the suite passed or ended as
the list says. A test without a result belongs to a program that crashed. A test that ends better than expected differs
too, so that the list stays true; "crash" is for one that passes or has no result.
"""

import json
import sys

END = {"pass", "fail", "skip"}


def read_expected(path, suite):
    expected = {}
    for line in open(path):
        words = line.split()
        if words and not line.startswith("#") and words[0] == suite:
            expected[words[1], words[2]] = words[3]
    return expected


def read_results(path):
    """What each test ended with, packages being tests without a name; and what it printed."""
    ended, printed = {}, {}
    for line in open(path):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if "Package" not in event:
            # Compiling has failed; the package says so too.
            print(event.get("Output", ""), end="")
            continue
        package = event["Package"].split("/go-dqlite")[1].lstrip("/")
        package = package.split("/", 1)[1] if package[:1] == "v" and "/" in package else package
        key = package, event.get("Test", "")
        if event["Action"] == "run":
            ended[key] = "without a result"
        elif event["Action"] == "output":
            printed[key] = printed.get(key, "") + event["Output"]
        elif event["Action"] in END:
            ended[key] = event["Action"]
    return ended, printed


def main():
    suite, results, path = sys.argv[1:]
    expected = read_expected(path, suite)
    ended, printed = read_results(results)
    wrong = []
    for (package, test), action in sorted(ended.items()):
        wanted = expected.pop((package, test), "pass")
        if not test:
            # A package fails with its tests; if none of them did, something else went wrong.
            blamed = any(p == package and t and a not in ("pass", "skip") for (p, t), a in ended.items())
            if action == "fail" and not blamed:
                wrong.append((package, test, "failed as a whole"))
        elif wanted != action and not (wanted == "crash" and action in ("pass", "without a result")):
            wrong.append((package, test, f"expected {wanted}, ended with {action}"))
    wrong += [(package, test, "is in the list and was not run") for package, test in expected]
    for package, test, what in wrong:
        print(f"{suite} {package} {test}: {what}")
        print("".join(printed.get((package, test), "").splitlines(True)[-40:]))
    counts = {action: sum(1 for (_, test), a in ended.items() if test and a == action) for action in sorted(END)}
    print(f"go: {suite}: {counts['pass']} passed, {counts['fail']} failed, {counts['skip']} skipped, "
          f"{len(wrong)} not as expected")
    # Without an answer from Go there is nothing to compare.
    sys.exit(bool(wrong) or counts["pass"] < 50)


main()
