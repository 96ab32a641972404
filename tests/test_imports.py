import gc
import subprocess
import sys

from healing_mnist.imports import importing


def python(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def test_the_garbage_collector_rests_during_imports_and_leaves_them_alone_afterwards():
    before = gc.get_freeze_count()
    with importing():
        assert not gc.isenabled()
    try:
        assert gc.isenabled()
        assert gc.get_freeze_count() > before + 1000  # all there is, or pytest were not here
    finally:
        gc.unfreeze()


def test_a_run_starts_without_the_half_of_scipy_that_it_has_no_use_for():
    script = (
        "import sys\nfrom healing_mnist.imports import importing\nwith importing():\n    import healing_mnist.runs\n"
    )
    script += "print(sum(name.startswith('scipy') for name in sys.modules))"
    assert int(python(script)) < 50


def test_scipy_signal_is_the_real_one_afterwards_and_for_whoever_needs_it_meanwhile():
    use = "print(scipy.signal.convolve([1.0, 2.0], [1.0, 1.0]).tolist())"
    start = "from healing_mnist.imports import importing\n"
    expected = "[1.0, 3.0, 2.0]"
    assert python(f"{start}with importing():\n    import torchmetrics\nimport scipy.signal\n{use}") == expected
    assert python(f"{start}with importing():\n    import scipy.signal\n    {use}") == expected
    inside = "with importing():\n    from scipy.signal import convolve\n    from scipy.signal.windows import hann\n"
    assert python(f"{start}{inside}print(convolve([1.0, 2.0], [1.0, 1.0]).tolist())") == expected
