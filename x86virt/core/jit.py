"""The seam between Python and machine code: the only module that imports Numba.

Every jitted function of the project is made by `kernel`, `inline` or `entry`. With the JIT disabled
(`NUMBA_DISABLE_JIT=1`) they are the identity and the byte accessors below are plain Python, so that the whole machine
also runs under the interpreter. `X86VIRT_BOUNDSCHECK=1` compiles with bounds checks on; the accessors then go through
ordinary indexing.

The cache directory is keyed by a hash of all jitted sources, because Numba does not notice that a callee in another
file has changed (numba#1833). The hardware has a directory of its own, which a change of the VMM's jitted code leaves alone.

Six habits of Numba are changed here for our functions alone, which is why its minor version is pinned: a callee is
not optimized anew in each caller, only entries become machine code (with the code of all that they call), a function is
not specialised for each constant that is passed to it, an index is taken as it is, arguments that a callee does not use
are not passed, and no vector registers are used: two results of a function, stored one by one, must not be loaded as one
vector, which waits for the stores to be done.

What few machines need (`late`) is an entry of its own, which the machine code that calls it has compiled, or loaded from the
cache, at the first call: the address is the process's, found by the name of a symbol, and no machine's record holds it.

Four more are changed to halve the time of a first run, and leave the machine code as it is: only the passes that our
functions need are run, with nothing between them; an operator's signature is found once; the text of a record type is
its name; the garbage collector rests.
"""

import ctypes
import functools
import gc
import hashlib
import importlib
import os
import pathlib
import signal
import sys
import traceback
import types

import numpy as np

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
HARDWARE = ("isa", "core")
RECORDS = ("vmm/translation/index.py", "vmm/translation/record.py")
# What the VMM has jitted, beside the hardware that it calls.
TOOLKIT = ("vmm/layout.py", "vmm/fast", "vmm/fast_hardware", "vmm/nested", "vmm/shadow", *RECORDS)
PARAVIRTUAL = ("vmm/paravirtual",)  # which the rest of the toolkit does not call

JIT_DISABLED = os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
BOUNDSCHECK = os.environ.get("X86VIRT_BOUNDSCHECK", "0") not in ("", "0")


@functools.cache
def source_hash(places: tuple[str, ...] = HARDWARE + TOOLKIT) -> str:
    """The hash of every source in these places that can end up in machine code, 16 hexadecimal digits."""
    digest = hashlib.sha256()
    files = [path for place in places for path in sources_of(PACKAGE / place)]
    for path in files:
        digest.update(path.relative_to(PACKAGE).as_posix().encode())
        digest.update(path.read_bytes())
    digest.update(b"boundscheck" if BOUNDSCHECK else b"")
    return digest.hexdigest()[:16]


def sources_of(place: pathlib.Path) -> list[pathlib.Path]:
    """The sources in a folder, or the file itself if there is one."""
    return sorted(place.rglob("*.py")) if place.is_dir() else [place] * place.exists()


def compiled_folder(module: str) -> str:
    """Where the machine code of a module's entries is kept."""
    places = HARDWARE if module.startswith("x86virt.core.") else HARDWARE + TOOLKIT
    if module.startswith("x86virt.vmm.paravirtual."):
        places += PARAVIRTUAL
    return str(cache_folder() / f"numba-{source_hash(places)}")


def cache_folder() -> pathlib.Path:
    """Where compiled code is kept: `$X86VIRT_CACHE`, else `x86virt` in the user's cache directory."""
    root = os.environ.get("X86VIRT_CACHE")
    if root is None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        root = os.path.join(home, "x86virt")
    return pathlib.Path(root)


if "numba" not in sys.modules and not JIT_DISABLED:
    os.environ["NUMBA_CACHE_DIR"] = compiled_folder("x86virt.core.")

if JIT_DISABLED:

    def kernel(function):
        """A function of the simulated hardware; compiled unless the JIT is disabled."""
        return function

    inline = entry = kernel

    def machine_code(function, *arguments):
        """What `call_machine_code` calls: the function itself."""
        return function

    def call_machine_code(function, *arguments):
        """Call it."""
        return function(*arguments)

    def late(module, name, *kinds):
        """What calls an entry of a module that is imported as late as the first call."""
        find = functools.cache(lambda: getattr(importlib.import_module(module), name))
        return lambda *arguments: find()(*arguments)

else:
    import numba
    from llvmlite import binding as llvm
    from llvmlite import ir
    from numba._dynfunc import make_function
    from numba.core import (
        cgutils,
        codegen,
        compiler,
        config,
        cpu,
        postproc,
        sigutils,
        transforms,
        typed_passes,
        untyped_passes,
    )
    from numba.core.registry import CPUDispatcher
    from numba.core.targetconfig import ConfigStack
    from numba.extending import intrinsic
    from numba.np import arrayobj

    # Merging the equal ends of the micro-operations' code into one makes the dispatch slower, and takes time itself.
    llvm.set_option("", "--enable-tail-merge=0")
    # Where a jump's target lies in its line of the host's cache decides a tenth of some guests' speed: let no edit move it.
    llvm.set_option("", "--align-all-functions=6")
    llvm.set_option("", "--align-all-nofallthru-blocks=5")

    # `_nrt=False`: no reference counts on the arrays that are handed from function to function (design, section 4).
    OPTIONS = dict(_nrt=False, error_model="numpy", boundscheck=BOUNDSCHECK, nogil=True)
    # What machine code alone calls needs none of the wrappers for other callers.
    INTERNAL = dict(nopython=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS)
    INLINE, KERNEL, ENTRY = "inline", "kernel", "entry"
    KIND: dict[str, str] = {}  # what each of our functions is, by the name of its code library

    def _named(function, kind):
        """Give a function a name that is unique in the package, and note its kind."""
        function.__qualname__ = f"{function.__module__}.{function.__name__}"
        KIND[function.__qualname__] = kind
        return function

    PASSES = [
        untyped_passes.TranslateByteCode(),
        untyped_passes.FixupArgs(),
        untyped_passes.IRProcessing(),
        untyped_passes.GenericRewrites(),
        untyped_passes.ReconstructSSA(),
        typed_passes.NopythonTypeInference(),
        typed_passes.PreLowerStripPhis(),
        typed_passes.NativeLowering(),
        typed_passes.NoPythonBackend(),
    ]

    class _Compiler(compiler.CompilerBase):
        """The passes of Numba that our functions need: no closures, literals, array expressions or reference counts."""

        def _compile_core(self):
            """Run the passes, without the timers, locks, events and repeated analysis that Numba has around each."""
            self.state.type_annotation = ""
            with ConfigStack().enter(self.state.flags.copy()):
                for step in PASSES:
                    step.run_pass(self.state)
            self.state.pipeline = None
            return self.state.cr

    _post_process = postproc.PostProcessor.run

    def _order_blocks(processor, emit_dels=False, extend_lifetimes=False):
        """Do after a pass what our passes need: they do not ask where a variable's life ends."""
        function = processor.func_ir
        if not function.func_id.modname.startswith("x86virt"):
            _post_process(processor, emit_dels, extend_lifetimes)
            return
        function.blocks = transforms.canonicalize_cfg(function.blocks)
        function.generator_info = None

    postproc.PostProcessor.run = _order_blocks

    class _Internal(CPUDispatcher):
        """A function that machine code calls. Python (a test of it) calls it through an entry, made when first needed."""

        entry = None

        def compile(self, signature):
            """Compile for one signature: what Numba does for a function that is not cached, without its timers."""
            arguments, result = sigutils.normalize_signature(signature)
            if tuple(arguments) not in self.overloads:
                with self._compiling_counter:
                    self.add_overload(self._compiler.compile(arguments, result))
            return self.overloads[tuple(arguments)].entry_point

        def __call__(self, *arguments):
            if self.entry is None:
                copy = types.FunctionType(self.py_func.__code__, self.py_func.__globals__, self.py_func.__name__ + "_entry")
                copy.__module__ = self.py_func.__module__
                self.entry = numba.njit(pipeline_class=_Compiler, **OPTIONS)(_named(copy, ENTRY))
            return self.entry(*arguments)

        def get_call_template(self, arguments, keywords):
            """Compile for the types of the arguments, not anew for each constant that some caller passes."""
            widened = {name: numba.types.unliteral(kind) for name, kind in keywords.items()}
            return super().get_call_template([numba.types.unliteral(kind) for kind in arguments], widened)

    class _Entry(CPUDispatcher):
        """A function that Python calls."""

        def compile(self, signature):
            """Compile it and all that it calls, with the garbage collector off, which would find next to nothing."""
            collecting = gc.isenabled()
            gc.disable()
            try:
                return super().compile(signature)
            finally:
                if collecting:
                    gc.enable()

    # The name of a record type is unique, and known; Numba writes a longer description of all fields at each use.
    numba.types.Record.__repr__ = numba.types.Type.__repr__

    # The types for which an operator's signature follows from them alone.
    PLAIN_TYPES = (numba.types.Number, numba.types.Boolean, numba.types.Array)
    _get_call_type = numba.types.BaseFunction.get_call_type

    def _call_type_once(function, context, arguments, keywords):
        """The signature of an operator for some types of numbers and arrays: found once, not in every expression."""
        if keywords or not all(isinstance(kind, PLAIN_TYPES) for kind in arguments):
            return _get_call_type(function, context, arguments, keywords)
        known = vars(function).setdefault("known_signatures", {})
        if arguments not in known:
            known[arguments] = _get_call_type(function, context, arguments, keywords)
        return known[arguments]

    numba.types.BaseFunction.get_call_type = _call_type_once

    def kernel(function):
        """A function of the simulated hardware; its callers call it, they do not inline it."""
        return _Internal(_named(function, KERNEL), targetoptions=dict(INTERNAL), pipeline_class=_Compiler)

    def inline(function):
        """A function compiled into each of its callers."""
        return _Internal(_named(function, INLINE), targetoptions=dict(INTERNAL, forceinline=True), pipeline_class=_Compiler)

    def entry(function):
        """A function that Python calls: all it needs is linked into it, and it is kept in the cache directory."""
        dispatcher = _Entry(_named(function, ENTRY), targetoptions=dict(OPTIONS, nopython=True), pipeline_class=_Compiler)
        config.CACHE_DIR = compiled_folder(function.__module__)
        dispatcher.enable_caching()
        return dispatcher

    def machine_code(function, *arguments):
        """The address of an entry's machine code for arguments of these types, compiled or loaded first if need be.

        `call_machine_code` calls it from another entry, which needs no copy of its code, and is not compiled anew with it.
        """
        return _code_for(function, tuple(map(numba.typeof, arguments)))

    def _code_for(function, types_of):
        """The address of an entry's machine code for some types of arguments."""
        function.compile(types_of)
        compiled = function.overloads[types_of]
        if compiled.signature.return_type != numba.types.int64:
            raise TypeError(f"{function.__qualname__} returns {compiled.signature.return_type}, not an integer")
        return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_func_name)

    @intrinsic
    def call_machine_code(typing_context, address, a, b, c, d, e, f, g, h):
        """Call the machine code of an entry of eight arguments that returns an integer (Numba's calling convention)."""
        arguments = (a, b, c, d, e, f, g, h)

        def generate(context, builder, signature, values):
            return _call_address(context, builder, values[0], signature.args[1:], values[1:])

        return numba.types.int64(numba.types.int64, *arguments), generate

    def _call_address(context, builder, address, kinds, values):
        """Generate the call of an entry that returns an integer, by the address of its machine code."""
        convention = context.call_conv
        kind = convention.get_function_type(numba.types.int64, kinds)
        places = [cgutils.alloca_once(builder, pointer.pointee) for pointer in kind.args[:2]]  # result, exception
        packed = convention._get_arg_packer(kinds).as_arguments(builder, values)
        builder.call(builder.inttoptr(address, kind.as_pointer()), [*places, *packed])
        return builder.load(places[0])

    class _Place:
        """Where machine code finds the address of an entry that is compiled late: 0 until the first call."""

        def __init__(self, module, name, kinds):
            self.module, self.name, self.kinds = module, name, kinds
            self.address = ctypes.c_int64(0)
            self.finder = ctypes.CFUNCTYPE(None)(self.find)  # machine code calls it, so it must stay
            llvm.add_symbol(self.symbol("address"), ctypes.addressof(self.address))
            llvm.add_symbol(self.symbol("find"), ctypes.cast(self.finder, ctypes.c_void_p).value)

        def symbol(self, what):
            """The name by which compiled code, which may come from the cache, knows a part of this."""
            return f"{self.module}.{self.name}.{what}"

        def find(self):
            """Compile the entry, or load it from the cache. The machine code that waits for it cannot go on without."""
            held = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                function = getattr(importlib.import_module(self.module), self.name)
                self.address.value = _code_for(function, self.kinds)
            except BaseException:
                traceback.print_exc()
                os.abort()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, held)

        def generate(self, context, builder, values):
            """Generate a call, which asks for the address if it is not known yet."""
            word = ir.IntType(64)
            address = builder.module.globals.get(self.symbol("address"))
            if address is None:
                address = ir.GlobalVariable(builder.module, word, self.symbol("address"))
            unknown = builder.icmp_unsigned("==", builder.load(address), word(0))
            with builder.if_then(unknown, likely=False):
                find = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.VoidType(), []), self.symbol("find"))
                builder.call(find, [])
            return _call_address(context, builder, builder.load(address), self.kinds, values)

    def _kind_of(kind):
        """The type of an argument of a late entry: `int`, `bytes` for a byte array, or a record of a dtype."""
        if kind is int:
            return numba.types.int64
        return numba.types.Array(numba.types.uint8, 1, "C") if kind is bytes else numba.from_dtype(kind)

    def _bare(context, builder, kind, value):
        """An array by its address alone, which is all that our functions use: else every caller would hand on all seven words."""
        if not isinstance(kind, numba.types.Array) or BOUNDSCHECK:
            return value
        array = context.make_array(kind)(context, builder)
        address = context.make_array(kind)(context, builder, value).data
        length, stride = (context.get_constant(numba.types.intp, number) for number in (sys.maxsize, 1))
        arrayobj.populate_array(array, address, shape=[length], strides=[stride], itemsize=stride, meminfo=None)
        return array._getvalue()

    def late(module, name, *kinds):
        """What calls an entry of eight arguments that returns an integer, and is compiled when it is first called.

        Whoever never calls it is spared the time for it. A record or array that it does not need may be passed as 0.
        """
        place = _Place(module, name, tuple(map(_kind_of, kinds)))

        @intrinsic
        def call(typing_context, a, b, c, d, e, f, g, h):
            arguments = [
                numba.types.int64 if isinstance(given, (numba.types.Integer, numba.types.Boolean)) else given
                for given in (a, b, c, d, e, f, g, h)
            ]

            def generate(context, builder, signature, values):
                passed = [
                    context.get_constant_null(kind) if given != kind else _bare(context, builder, kind, value)
                    for kind, given, value in zip(place.kinds, signature.args, values, strict=True)
                ]
                return place.generate(context, builder, passed)

            return numba.types.int64(*arguments), generate

        return call

    _fix_integer_index = arrayobj.fix_integer_index

    def _plain_index(context, builder, kind, index, size):
        """Our indices are never negative: spare the wrap-around that Numba makes of a signed one."""
        if not BOUNDSCHECK and "x86virt" in builder.function.name:
            return context.cast(builder, index, kind, numba.types.intp)
        return _fix_integer_index(context, builder, kind, index, size)

    arrayobj.fix_integer_index = _plain_index

    def _optimize_functions(library, module):
        """Optimize the functions that a module defines, with one manager of passes, not one for each that it declares."""
        module.data_layout = library._codegen._data_layout
        manager, builder = library._codegen._function_pass_manager()
        for function in module.functions:
            if not function.is_declaration:
                manager.run(function, builder)

    codegen.CPUCodeLibrary._optimize_functions = _optimize_functions

    _finalize = codegen.CPUCodeLibrary.finalize

    def _drop_unused_arguments(library, own):
        """Make all but the entry's `own` functions local to the module, and leave out what they are passed in vain.

        An array is passed as seven words, of which nearly every kernel needs only its address.
        """
        for function in library._final_module.functions:
            if not function.is_declaration and function.name not in own:
                function.linkage = "internal"
        passes = llvm.create_new_module_pass_manager()
        passes.add_dead_arg_elimination_pass()
        passes.add_global_opt_pass()
        passes.run(library._final_module, library._codegen._module_pass_manager()[1])

    def _finalize_once(library):
        """Optimize each function once, in place of Numba's way of optimizing every callee again in every caller.

        The code of inlined callees is linked in first; kernels stay external symbols while the function is optimized,
        and are linked, already optimized, into entries only. This makes compile time linear in the size of the core.
        """
        if library.name not in KIND:
            _finalize(library)
            return
        library._raise_if_finalized()
        kernels = {}
        for callee in dict.fromkeys(library._linking_libraries):
            library._reload_init.update(callee._reload_init)
            kernels.update(getattr(callee, "kernels", {}))
            if KIND.get(callee.name) == KERNEL:
                kernels[callee] = None
            else:
                library._final_module.link_in(callee._get_module_for_linking(), preserve=True)
        library.kernels = kernels
        for function in library._final_module.functions:
            function.add_function_attribute("noimplicitfloat")
        library._optimize_final_module()
        if KIND[library.name] != ENTRY:
            library._finalized = True
            return
        own = {function.name for function in library._final_module.functions if not function.is_declaration}
        # Callers before callees: a definition that nothing refers to yet would not be linked.
        for callee in reversed(kernels):
            library._final_module.link_in(callee._get_module_for_linking(), preserve=True)
        _drop_unused_arguments(library, own)
        library._final_module.verify()
        library._finalize_final_module()

    codegen.CPUCodeLibrary.finalize = _finalize_once

    _get_executable = cpu.CPUContext.get_executable

    def _executable_of_entries(context, library, description, environment):
        """The Python callable of a compiled function: of an entry its machine code, which kernels alone do not have."""
        if KIND.get(library.name, ENTRY) == ENTRY:
            return _get_executable(context, library, description, environment)
        library._ensure_finalized()
        never_called = ctypes.cast(ctypes.pythonapi.PyErr_BadInternalCall, ctypes.c_void_p).value
        return make_function(description.lookup_module(), "kernel", "", never_called, environment, (library,))

    cpu.CPUContext.get_executable = _executable_of_entries


if JIT_DISABLED or BOUNDSCHECK:

    @inline
    def load_8(memory, address):
        """The byte at `address` of a byte array."""
        return np.int64(memory[address])

    @inline
    def load_16(memory, address):
        """The little-endian word at `address`, at any alignment."""
        return np.int64(memory[address]) | np.int64(memory[address + 1]) << 8

    @inline
    def load_32(memory, address):
        """The little-endian doubleword at `address`, at any alignment."""
        return (
            np.int64(memory[address])
            | np.int64(memory[address + 1]) << 8
            | np.int64(memory[address + 2]) << 16
            | np.int64(memory[address + 3]) << 24
        )

    @inline
    def store_8(memory, address, value):
        """Store the low byte of `value`."""
        memory[address] = value & 0xFF

    @inline
    def store_16(memory, address, value):
        """Store the low word of `value`, little-endian."""
        memory[address] = value & 0xFF
        memory[address + 1] = (value >> 8) & 0xFF

    @inline
    def store_32(memory, address, value):
        """Store the low doubleword of `value`, little-endian."""
        memory[address] = value & 0xFF
        memory[address + 1] = (value >> 8) & 0xFF
        memory[address + 2] = (value >> 16) & 0xFF
        memory[address + 3] = (value >> 24) & 0xFF

else:

    def _loader(bits):
        @intrinsic
        def load(typing_context, memory, address):
            def generate(context, builder, signature, arguments):
                array = context.make_array(signature.args[0])(context, builder, arguments[0])
                pointer = cgutils.pointer_add(builder, array.data, arguments[1], ir.IntType(bits).as_pointer())
                value = builder.load(pointer)
                value.align = 1
                return builder.zext(value, ir.IntType(64))

            return numba.types.int64(memory, numba.types.int64), generate

        return load

    def _storer(bits):
        @intrinsic
        def store(typing_context, memory, address, value):
            def generate(context, builder, signature, arguments):
                array = context.make_array(signature.args[0])(context, builder, arguments[0])
                pointer = cgutils.pointer_add(builder, array.data, arguments[1], ir.IntType(bits).as_pointer())
                builder.store(builder.trunc(arguments[2], ir.IntType(bits)), pointer).align = 1
                return context.get_dummy_value()

            return numba.types.void(memory, numba.types.int64, numba.types.int64), generate

        return store

    load_8, load_16, load_32 = _loader(8), _loader(16), _loader(32)
    store_8, store_16, store_32 = _storer(8), _storer(16), _storer(32)
