"""Three files of the library are the whole pattern, four with a running query. Copied, they need nothing else of it."""

import shutil
import subprocess
import sys
from pathlib import Path

from demo.stack import ROOT
from tests.helpers import disk_truth as truth

import pytest

PATTERN = ("errors", "pushgateway", "versions")
PUSH = """
import sys, {imports}
lag.pushgateway.Pushgateway(sys.argv[1]).push("visits_test", 3)
print([name for name in sys.modules if name.startswith("lag_detector")])
"""


@pytest.mark.parametrize("modules", [PATTERN, (*PATTERN, "listener")], ids=["pattern", "running-query"])
def test_copied_files_in_another_package_push_without_the_library(
    modules: tuple[str, ...], tmp_path: Path, pushgateway_url: str
) -> None:
    (tmp_path / "lag").mkdir()
    for module in modules:
        shutil.copy(ROOT / "lag_detector" / f"{module}.py", tmp_path / "lag")
    code = PUSH.format(imports=", ".join(f"lag.{module}" for module in modules))
    command = [sys.executable, "-c", code, pushgateway_url]
    printed = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, timeout=120, check=True).stdout
    assert printed == "[]\n"
    assert truth.gauges(pushgateway_url) == {"visits_test": 3}
