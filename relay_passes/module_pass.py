"""The base of all passes, and how one is run on its own by TVM."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import tvm
import tvm_ffi
from tvm import IRModule

from vitq.numerics.errors import RangeError, VitqError
from vitq.relay_passes.properties import CHECKS, Property, missing, record

for _error in (VitqError, RangeError):
    tvm_ffi.register_error(_error)  # else TVM would hand on a RuntimeError

Watch = Callable[["ModulePass", IRModule], None]
"""Called behind a pass with the module that it left."""


class ModulePass(ABC):
    """One pass: a function of modules with a name, and with what must hold around it.

    Attributes:
        name: of the class.
        requires: what must hold of a module before the pass.
        ensures: what holds after it.
    """

    name: ClassVar[str] = ""
    requires: ClassVar[tuple[Property, ...]] = ()
    ensures: ClassVar[tuple[Property, ...]] = ()
    ensured_by: ClassVar[dict[Property, list[str]]] = {}
    """The names of all passes that ensure a property, for error messages."""

    def __init_subclass__(cls) -> None:
        """Name the pass after its class."""
        super().__init_subclass__()
        cls.name = cls.__name__
        for given in cls.__dict__.get("ensures", ()):
            ModulePass.ensured_by.setdefault(given, []).append(cls.name)

    @abstractmethod
    def __call__(self, mod: IRModule) -> IRModule:
        """Run on a module, whatever holds of it."""

    def checked(self, mod: IRModule) -> IRModule:
        """Run on a module that must have what the pass requires.

        Raises:
            VitqError: naming what does not hold, and the pass that would ensure it.
        """
        for wanted in self.requires:
            reason = missing(mod, wanted)
            if reason is not None:
                remedy = " or ".join(ModulePass.ensured_by.get(wanted, ["the import"]))
                raise VitqError(
                    f"{self.name} requires {wanted.name} ({wanted.value}): {reason} | {remedy} "
                    "comes before it"
                )
        after = record(self(mod), self.ensures)
        for given in self.ensures:
            reason = missing(after, given) if given in CHECKS else None
            if reason is not None:
                raise VitqError(f"{self.name} must ensure {given.name} ({given.value}): {reason}")
        return after

    def as_tvm(self, watch: Watch | None = None) -> Any:
        """Make a ``tvm.transform.Pass`` under this name; `watch` is told what it left."""

        def transform(mod: IRModule, _: Any) -> IRModule:
            after = self.checked(mod)
            if watch is not None:
                watch(self, after)
            return after

        return tvm.transform.module_pass(transform, opt_level=0, name=self.name)
