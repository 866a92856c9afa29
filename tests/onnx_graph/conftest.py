"""The nets of the runtime's tests."""

from tests.runtime.conftest import build as build
from tests.runtime.conftest import observe as observe
from tests.runtime.conftest import quantize as quantize
