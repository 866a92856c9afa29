"""Known weaknesses of the installed packages; exit code 1 if there are new ones.

Asks OSV through pip-audit (`pip install pip-audit`, in any environment on the path). Where either
is missing it says so and ends with 0: a machine without the network checks everything else.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
from typing import Final

# nni 3.0 asks for filelock < 3.12. Locks lie in run folders, whose links are refused before.
KNOWN: Final = {"CVE-2025-68146": "filelock"}


def main() -> int:
    """Print what is found; 1 if it is something that is not known already."""
    program = shutil.which("pip-audit")
    if program is None:
        print("The audit of dependencies is skipped: pip-audit is not installed.")
        return 0
    done = subprocess.run(
        [
            *(program, "--vulnerability-service", "osv", "--format", "json", "--timeout", "10"),
            *("--progress-spinner", "off", "--path", sysconfig.get_path("purelib")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        cause = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
        print(f"The audit of dependencies is skipped: {cause[:200]}")
        return 0
    new = 0
    for package in packages:
        for found in package.get("vulns", ()):
            names = {found["id"], *found.get("aliases", ())}
            is_known = any(KNOWN.get(name) == package["name"] for name in names)
            new += not is_known
            fixed = ", ".join(found.get("fix_versions", ())) or "none yet"
            note = " (known, see scripts/audit.py)" if is_known else ""
            print(f"{package['name']} {package['version']}: {found['id']}, fixed in {fixed}{note}")
    n_asked = sum("skip_reason" not in package for package in packages)
    print(f"{n_asked} packages audited, {new} new findings.")
    return int(new > 0)


if __name__ == "__main__":
    sys.exit(main())
