#!/usr/bin/env python3
"""The official JSON Schema test suite against the engine's constraints.

    python benches/schema_suite.py [--answers N] [--vocabulary FILE.gguf] [--show]

Fetches the suite (it travels inside the source package of `jsonschema` on
PyPI) and that package into target/schema-suite, and builds the engine's
example `schema_suite`. For every schema of drafts 2020-12 and 7 that the engine
follows, every instance of the suite is offered to the masks token by token,
written in the one form that the engine writes, with keys in every order and
characters escaped. An instance that the suite calls invalid must not pass. Then
concierge answers in each schema with random sampling; an answer that ends with
`stop` must be valid to `jsonschema`.

The last line is `ok`, or says what was wrong; then the exit status is 1.
"""

import argparse
import collections
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile
import venv

ROOT = pathlib.Path(__file__).resolve().parent.parent
PLACE = ROOT / "target" / "schema-suite"
VERSION = "4.26.0"
DRAFTS = ["draft2020-12", "draft7"]
# Formats that the engine holds answers to; the others are annotations.
FORMATS = ["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"]
VARIANTS = 24


def fetch():
    """The suite's folder, and jsonschema on the path."""
    source = PLACE / f"jsonschema-{VERSION}"
    python = PLACE / "venv" / "bin" / "python"
    if not python.exists():
        venv.create(PLACE / "venv", with_pip=True)
    pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    if not source.exists():
        package = f"jsonschema=={VERSION}"
        subprocess.run([*pip, "install", "jsonschema[format]==" + VERSION], check=True)
        subprocess.run([*pip, "download", "--no-deps", "--no-binary", ":all:", "--dest", PLACE, package], check=True)
        with tarfile.open(PLACE / f"jsonschema-{VERSION}.tar.gz") as archive:
            archive.extractall(PLACE, filter="data")
    if pathlib.Path(sys.prefix) != PLACE / "venv":
        os.execv(python, [python, __file__, *sys.argv[1:]])
    return source / "json" / "tests"


def groups(tests):
    """(draft, file, group) for what is of the standard, and for the formats that are held to."""
    for draft in DRAFTS:
        for path in sorted((tests / draft).glob("*.json")):
            for group in json.loads(path.read_text()):
                yield draft, path.stem, group
        for name in FORMATS:
            path = tests / draft / "optional" / "format" / f"{name}.json"
            for group in json.loads(path.read_text()) if path.exists() else []:
                yield draft, f"format {name}", group
        for name in ["bignum", "float-overflow", "non-bmp-regex", "ecmascript-regex", "id", "anchor",
                     "refOfUnknownKeyword", "unknownKeyword"]:
            path = tests / draft / "optional" / f"{name}.json"
            for group in json.loads(path.read_text()) if path.exists() else []:
                yield draft, f"optional {name}", group


def orders(value):
    """The value with the keys of its objects in every order, a few of them."""
    if isinstance(value, list):
        parts = [list(itertools.islice(orders(part), 4)) for part in value]
        for chosen in itertools.islice(itertools.product(*parts), VARIANTS):
            yield list(chosen)
    elif isinstance(value, dict):
        for keys in itertools.islice(itertools.permutations(value), VARIANTS):
            parts = [list(itertools.islice(orders(value[key]), 4)) for key in keys]
            for chosen in itertools.islice(itertools.product(*parts), 4):
                yield dict(zip(keys, chosen))
    else:
        yield value


def written(value, ascii_only=False):
    return json.dumps(value, separators=(", ", ": "), ensure_ascii=ascii_only)


def texts(value):
    """The ways to write a value that differ in nothing but spelling."""
    found = []
    for order in itertools.islice(orders(value), VARIANTS):
        found.append(written(order))
    plain = found[0]
    found.append(written(value, ascii_only=True))
    # The first letter of every string, and of names alone, by its number.
    number = lambda m: '"\\u%04x' % ord(m[1]) + (m[2] if m.lastindex > 1 else "")
    found.append(re.sub(r'"([A-Za-z])', number, plain))
    found.append(re.sub(r'"([A-Za-z])([^"]*": )', number, plain))
    if isinstance(value, dict) and value:
        # A key twice: the last one counts.
        key = next(iter(value))
        for other in ["null", "1", '"x"', "{}", "[]"]:
            found.append("{" + written(key) + ": " + other + ", " + plain[1:])
    if isinstance(value, float) and value == int(value) and abs(value) < 1e15:
        found.append(str(int(value)))
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1e15:
        found += [f"{value}.0", f"{value}e0"]
    unique = []
    for text in found:
        try:
            text.encode()
        except UnicodeEncodeError:
            continue
        if text not in unique:
            unique.append(text)
    return unique


def reason(message):
    """A refusal without its place."""
    words = re.search(r"leave '([^']+)' out", message)
    if words:
        return f"keyword {words[1]}"
    return re.sub(r"^.*? at \S+: ", "", message)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--answers", type=int, default=3)
    arguments.add_argument("--vocabulary")
    arguments.add_argument("--show", action="store_true", help="print what was refused")
    asked = arguments.parse_args()
    tests = fetch()
    from jsonschema import Draft7Validator, Draft202012Validator, FormatChecker
    from referencing import Registry

    validators = {"draft2020-12": Draft202012Validator, "draft7": Draft7Validator}
    command = ["cargo", "build", "--quiet", "--package", "nearfar-engine", "--example", "schema_suite"]
    subprocess.run(command, cwd=ROOT, check=True)
    built = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    engine = subprocess.Popen(
        [built / "debug" / "examples" / "schema_suite", *([asked.vocabulary] if asked.vocabulary else [])],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )
    table = {draft: collections.Counter() for draft in DRAFTS}
    refusals = {draft: collections.Counter() for draft in DRAFTS}
    narrow = collections.Counter()
    wrong = []
    for draft, name, group in groups(tests):
        count = table[draft]
        forms = [texts(test["data"]) for test in group["tests"]]
        question = {
            "schema": json.dumps(group["schema"]),
            "texts": [text for form in forms for text in form],
            "answers": asked.answers,
        }
        engine.stdin.write(json.dumps(question) + "\n")
        engine.stdin.flush()
        line = engine.stdout.readline()
        if not line:
            wrong.append(f"{draft} {name}: {group['description']}: the engine ended")
            break
        reply = json.loads(line)
        count["schemas"] += 1
        where = f"{draft} {name}: {group['description']}"
        if "refused" in reply:
            count["refused"] += 1
            refusals[draft][reason(reply["refused"])] += 1
            if asked.show:
                print("refused", where, reply["refused"], question["schema"], sep="\t")
            continue
        accepted = iter(reply["accepted"])
        for test, form in zip(group["tests"], forms):
            passed = [text for text in form if next(accepted)]
            # A key twice is another value to a reader that takes the first one.
            if test["valid"]:
                count["valid"] += 1
                count["valid, let through"] += bool(passed)
                if not passed:
                    narrow[f"{name}"] += 1
                    if asked.show:
                        print("narrow", where, test["description"], form[0], question["schema"], sep="\t")
            else:
                count["invalid"] += 1
                for text in passed:
                    wrong.append(f"{where}: {test['description']}: {text} passes {question['schema']}")
        schema = group["schema"]
        validator = validators[draft](schema, format_checker=FormatChecker(FORMATS), registry=Registry())
        for answer in reply["answers"]:
            count[f"answers, {answer['finish']}"] += 1
            if answer["finish"] == "stop":
                try:
                    errors = [error.message for error in validator.iter_errors(json.loads(answer["text"]))]
                except re.error:
                    # Python's expressions know no \\p{…}, which ECMA-262 has.
                    count["answers, not judged"] += 1
                    continue
                except ValueError as error:
                    errors = [str(error)]
                if errors:
                    wrong.append(f"{where}: answer {answer['text']} to {question['schema']}: {errors[0]}")
            elif answer["finish"] != "length":
                wrong.append(f"{where}: an answer {answer['finish']}: {question['schema']}")
    engine.stdin.close()
    names = sorted({name for count in table.values() for name in count})
    width = max(map(len, names)) + 2
    print(" " * width + "".join(f"{draft:>14}" for draft in DRAFTS))
    for name in names:
        print(f"{name:<{width}}" + "".join(f"{table[draft][name]:>14}" for draft in DRAFTS))
    print("\nSchemas refused, by reason")
    for text in sorted({text for count in refusals.values() for text in count}, key=lambda t: -refusals[DRAFTS[0]][t]):
        print("".join(f"{refusals[draft][text]:>6}" for draft in DRAFTS), "", text)
    print("\nValid instances held back, by file:", ", ".join(f"{n} {c}" for n, c in narrow.most_common()))
    for text in wrong:
        print("WRONG", text)
    print("ok" if not wrong else f"{len(wrong)} wrong")
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
