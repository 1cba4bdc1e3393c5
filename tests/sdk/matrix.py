"""Makes docs/matrix.md of what the SDK tests recorded: matrix.py RECORDS."""

import sys

FEATURES = ["chat", "stream", "tools", "parallel", "schema", "images", "errors", "cancel"]
HEAD = """# Fronts, targets and features

Made by `scripts/matrix`, which runs the real client SDKs, unchanged, against a
running daemon (`tests/sdk/`). A provider is the tests' double, which speaks the
provider's wire format. The local model is the embedded `concierge`.

- ✓: every check of the feature passed
- refused: the target cannot do it, and the client got a clear error
- –: no check of it for this target
- ✗: a check failed

"""


def cell(outcomes):
    if "FAILED" in outcomes:
        return "✗"
    if "ok" in outcomes:
        return "✓"
    return "refused" if "refused" in outcomes else "–"


rows = {}
for line in open(sys.argv[1], encoding="utf-8"):
    front, target, feature, outcome = line.rstrip("\n").split("\t")
    rows.setdefault((front, target), {}).setdefault(feature, []).append(outcome)
print(HEAD, end="")
print("| front, SDK | target | " + " | ".join(FEATURES) + " | also |")
print("|---|---|" + "---|" * (len(FEATURES) + 1))
for (front, target), found in sorted(rows.items()):
    more = [feature for feature in found if feature not in FEATURES and cell(found[feature]) == "✓"]
    cells = [cell(found.get(feature, [])) for feature in FEATURES]
    print(f"| {front} | {target} | {' | '.join(cells)} | {', '.join(sorted(more))} |")
