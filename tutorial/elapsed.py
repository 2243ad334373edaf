"""Run a slow step of the set-up, and show its seconds: python -m tutorial.elapsed LINE COMMAND …

On a terminal the seconds count while it runs. What the command prints is shown only if it fails.
"""

import subprocess
import sys
import time


def main(line: str, *command: str) -> int:
    """Run the command, and return its exit code."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # in any locale
    begin = time.monotonic()
    rewrite = f"\r{line} …" if sys.stdout.isatty() else ""

    def seconds() -> str:
        return f"{rewrite} {time.monotonic() - begin:.0f} s"

    print(f"{line} …", end="", flush=True)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, errors="replace") as process:
        while True:
            try:
                output, _ = process.communicate(timeout=1)
                break
            except subprocess.TimeoutExpired:
                if rewrite:
                    print(seconds(), end="", flush=True)
    print(seconds())
    if process.returncode:
        print(output, end="", file=sys.stderr)
    return process.returncode


if __name__ == "__main__":
    try:
        sys.exit(main(*sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
