"""The toolkit that strategies are built from. What `__all__ = [
    "HARDWARE_PATHS", "NESTED_PATHS", "PARAVIRTUAL_PATHS", "SEEN_BY_PROGRAMS", "SHADOW_PATHS", "Choice", "Count", "Exit",
    "GuestFault", "HardwareVm", "HardwareVmm", "ParavirtualVm", "Size", "SoftwareVm", "SoftwareVmm", "Strategy", "SvmVmm",
    "Switch", "Unsupported", "VirtualMachine", "VmmError", "hardware_options", "hardware_shadow_options", "nested_options",
    "shadow_options", "translation_options",
]  # fmt: skip
