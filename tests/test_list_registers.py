"""Reading ptxas's messages and writing the table into a document; no compiler needed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from scene3d.core.errors import Scene3dError

PATH = Path(__file__).resolve().parents[1] / "tools" / "list_registers.py"
LOG = """\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN7scene3d3gpu41_GLOBAL__N__a74d7f06_17_blend_cu_cb8794dd15backward_kernel\
ILb1ELb0EEEvNS1_12BackwardArgsE' for 'sm_86'
ptxas info    : Function properties for x
    16 bytes stack frame, 4 bytes spill stores, 8 bytes spill loads
ptxas info    : Used 40 registers, used 1 barriers, 15376 bytes smem, 528 bytes cmem[0]
ptxas info    : Compiling entry function '_ZN3cub6detail4scanEv' for 'sm_86'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 9 registers
"""


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("list_registers", PATH)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_our_kernels_are_read_and_those_of_libraries_left_out(tool) -> None:
    assert tool.parse(LOG) == [tool.Kernel("backward_kernel<1, 0>", 86, 40, 15376, 16, 12)]


def test_templates_are_told_apart(tool) -> None:
    space = "_ZN7scene3d3gpu32_GLOBAL__N__e1db_8_field_cu_7fe2"
    assert tool.demangled(f"{space}12march_kernelILNS0_9FieldKindE2EEEvNS0_9FieldArgsE") == "march_kernel<2>"
    assert tool.demangled(f"{space}14descent_kernelILi3ELb0EEEvNS_10RasterCallIfEE") == "descent_kernel<3, 0>"
    assert tool.demangled(f"{space}11adam_kernelENS1_9AdamTableE") == "adam_kernel"


def test_messages_that_are_not_understood_are_refused(tool) -> None:
    with pytest.raises(Scene3dError, match="ptxas: expected an entry"):
        tool.parse(LOG.replace("Used 40 registers", "Used some registers"))


def test_table_goes_between_the_marks(tool, tmp_path: Path) -> None:
    doc = tmp_path / "doc.md"
    doc.write_text(f"before\n{tool.BEGIN}\nold\n{tool.END}\nafter\n")
    tool.put_into(doc, tool.table(tool.parse(LOG), (75, 86)))
    lines = doc.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after")
    assert "| `backward_kernel<1, 0>` |  | 40 | 15376 | 16 | 12 |" in lines
    assert "old" not in lines


def test_a_document_without_marks_is_refused(tool, tmp_path: Path) -> None:
    doc = tmp_path / "doc.md"
    doc.write_text("nothing")
    with pytest.raises(Scene3dError, match="expected the marks"):
        tool.put_into(doc, "table")
