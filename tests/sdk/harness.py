"""What the SDK scripts share: `python SCRIPT BASE_URL MODEL SIDE`.

SIDE is `local` (this device's model) or the dialect that the provider double
behind MODEL speaks. A check belongs to a feature, for the matrix in
docs/matrix.md. It prints one line:

    ok FEATURE CHECK        it works
    refused FEATURE CHECK   the target cannot, and the client was told so clearly
    n/a FEATURE CHECK       the target has no such thing

and returns "refused" or "n/a" to say so. The script ends with `N passed`, or
with a traceback for each check that failed.

The double steers by the user's words: see tests/support/double/fitting.rs.
"""

import sys
import time
import traceback

BASE_URL, MODEL, SIDE = sys.argv[1:4]
LOCAL = SIDE == "local"

FACTS = "You are the assistant at the front desk of the Star Hotel.\nDetails:\n- Breakfast: 7:00 - 10:30\n- Wifi password: river42\n- Pool hours: 9 am - 8 pm"
LIGHTS = {"type": "object", "properties": {"room": {"type": "string", "description": "which room"}, "state": {"type": "string", "enum": ["on", "off"]}}, "required": ["room", "state"]}
DESK = {"type": "object", "properties": {"urgent": {"type": "boolean"}}, "required": ["urgent"]}
QUESTION = "when is breakfast"
# The double calls tools whose names the user says; concierge knows what is meant.
SWITCH = "turn on the lights in the kitchen" + ("" if LOCAL else " with set_lights")
BOTH = "use set_lights for the kitchen and call_desk"
# A picture of one red pixel.
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="

checks = []


def check(feature):
    def add(function):
        checks.append((feature, function))
        return function

    return add


def main():
    failed = 0
    for feature, function in checks:
        began = time.time()
        try:
            outcome = function() or "ok"
        except Exception:
            failed += 1
            outcome = "FAILED"
            traceback.print_exc()
        print(f"{outcome} {feature} {function.__name__} ({time.time() - began:.2f} s)", flush=True)
    if failed:
        sys.exit(f"{failed} of {len(checks)} failed")
    print(f"{len(checks)} passed")
