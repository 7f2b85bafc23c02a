#!/bin/sh
# What is installed (an SBOM), what is known against it, and whether a secret is under version control.
# 0: nothing found; 1: something was found; 3: nothing was found, but the advisory database could not be asked.
set -eu
cd "$(dirname "$0")/.."
PYTHON=${1:-.venv/bin/python}
TOOLS=.venv/audit
OUT=build/audit
EXCLUDED='(^|/)(constraints\.txt|.*\.jsonl|.*\.tsv|.*\.svg|.*\.baseline)$|^tests/upgrade/|^antiprompt_bank/adapter/|^gateway/alignment/results/'

# In an environment of their own: what audits is not what is audited.
if [ ! -x "$TOOLS/bin/pip-audit" ]; then
    "$PYTHON" -m venv "$TOOLS"
    "$TOOLS/bin/python" -m pip install --quiet --disable-pip-version-check \
        'pip-audit>=2.10,<3' 'cyclonedx-bom>=7.5,<8' 'detect-secrets>=1.5,<2'
fi
mkdir -p "$OUT"
found=0
unasked=0

"$TOOLS/bin/cyclonedx-py" environment --output-reproducible --of JSON -o "$OUT/sbom.json" "$PYTHON"
echo "sbom: $OUT/sbom.json"

# What git tracks, except what a person has looked at (.secrets.baseline): made-up keys of tests and examples.
git ls-files -z | grep -zvE "$EXCLUDED" | xargs -0 "$TOOLS/bin/detect-secrets-hook" --baseline .secrets.baseline ||
    { echo "secrets: something looks like one; if it is none: detect-secrets audit .secrets.baseline"; found=1; }

# Exact versions, as they are installed; nothing is resolved or built for this.
"$PYTHON" -m pip freeze --exclude-editable | grep == > "$OUT/installed.txt"
rm -f "$OUT/advisories.json"
"$TOOLS/bin/pip-audit" -r "$OUT/installed.txt" --no-deps --disable-pip --progress-spinner off -f json \
    -o "$OUT/advisories.json" 2> "$OUT/advisories.log" || true
"$PYTHON" - "$OUT/advisories.json" <<'PY' || { [ $? -eq 1 ] && found=1; } || unasked=3
import json, pathlib, sys
told = pathlib.Path(sys.argv[1])
rows = json.loads(told.read_text())["dependencies"] if told.is_file() and told.stat().st_size else []
asked = [row for row in rows if "skip_reason" not in row]
if not asked:
    print("advisories: the database could not be asked")
    sys.exit(3)
known = [(row["name"], row["version"], each["id"], each["fix_versions"]) for row in asked for each in row["vulns"]]
print(f"advisories: {len(known)} against {len(asked)} libraries; {len(rows) - len(asked)} are not in the database")
for name, version, advisory, mended in known:
    print(f"  {name} {version}: {advisory}, mended in {', '.join(mended) or 'no version yet'}")
sys.exit(bool(known))
PY
[ "$found" -eq 0 ] || exit 1
exit "$unasked"
