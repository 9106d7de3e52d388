# Made by cffi from index.h; the calls are checked by the C compiler, not here.
from typing import Any

ffi: Any
lib: Any
