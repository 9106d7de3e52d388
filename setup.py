import runpy

from setuptools import setup

build = runpy.run_path("rowex/native/build.py")
setup(cffi_modules=["rowex/native/build.py:ffibuilder"], ext_modules=[build["hot_extension"]()])
